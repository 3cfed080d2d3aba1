"""Vector columns by hand: scaled by train, coded the same way since, refused if wrong."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from dssm_core.config import Feature, FeatureColumns, Features
from dssm_core.errors import DataError
from dssm_core.features.ids import Ids
from dssm_core.features.ordered_rows import OrderedRows
from dssm_core.features.schema import VectorColumn
from dssm_core.features.tables import encode_table, extend_table, fit_table
from dssm_core.features.vectors import VectorScale, read_vectors, rows_without_vector

ITEMS = Ids.fit(pd.Series(["a", "b", "c"]))
PRICE = Feature(column="price", kind="numeric", normaliser="none")


def vector(**changes: object) -> Feature:
    return Feature.model_validate({"column": "v", "kind": "vector", "dim": 2} | changes)


def fitted(folder: Path, *features: Feature, **columns: list[object]) -> tuple:
    """The item table of "c", "a" and "zz", which train does not have."""
    rows = pd.DataFrame({"item_id": ["c", "a", "zz"]} | columns)
    settings = Features(columns=FeatureColumns(item=features))
    return fit_table(settings, "item", rows, ITEMS, folder)


def test_vectors_are_the_first_numbers_of_a_row_and_a_missing_one_is_zeros(tmp_path: Path) -> None:
    table, side = fitted(
        tmp_path,
        PRICE,
        vector(normaliser="none"),
        price=[7.0, 8.0, 9.0],
        v=[[1, 2], [3, 4], [50, 60]],
    )
    # rows: unknown, a, b (not in the table), c
    assert table.numeric.tolist() == [[0, 0, 0], [3, 4, 8], [0, 0, 0], [1, 2, 7]]
    assert table.numeric.dtype == torch.float32
    assert side.vectors == (VectorColumn(column="v", width=2, dim=2),)
    assert side.numeric == 1
    assert rows_without_vector(table.numeric[1:], side) == 1


def test_standard_keeps_directions_from_the_mean(tmp_path: Path) -> None:
    table, _ = fitted(tmp_path, vector(), v=[[1000.0, 2.0], [1004.0, 4.0], [9.0, 9.0]])
    # the mean of train is [1002, 3]; the numbers deviate by -2, -1, 2, 1: sqrt((4 + 1 + 4 + 1) / 4)
    deviation = np.sqrt(2.5)
    expected = np.array([[0, 0], [2, 1], [0, 0], [-2, -1]]) / deviation
    np.testing.assert_allclose(table.numeric.numpy(), expected, rtol=1e-5)


def test_length_gives_all_vectors_the_same_length(tmp_path: Path) -> None:
    table, _ = fitted(tmp_path, vector(normaliser="length"), v=[[3, 4], [0, 1e-3], [9, 9]])
    expected = np.sqrt(2) * np.array([[0, 0], [0, 1], [0, 0], [0.6, 0.8]])
    np.testing.assert_allclose(table.numeric.numpy(), expected, rtol=1e-6)


def test_equal_vectors_are_zeros_because_they_tell_nothing_apart(tmp_path: Path) -> None:
    table, _ = fitted(tmp_path, vector(), v=[[3.3, 4.1], [3.3, 4.1], [9, 9]])
    assert not table.numeric.any()


def test_later_items_are_coded_by_what_train_fitted(tmp_path: Path) -> None:
    table, _ = fitted(tmp_path, vector(), PRICE, v=[[1, 2], [4, 4], None], price=[1, 2, 3])
    columns = FeatureColumns(item=(vector(), PRICE))
    rows = pd.DataFrame({"item_id": ["new", "none"], "v": [[4.0, 4.0], None], "price": [2, 5]})
    later = Ids(pd.Index(["new", "none"]))
    longer = extend_table(table, columns, "item", rows, later, tmp_path)
    assert longer.numeric[-2].equal(table.numeric[1])
    assert longer.numeric[-1].tolist() == [0, 0, 5]
    again = encode_table(columns, "item", rows, tmp_path)
    assert again.numeric.equal(longer.numeric[-2:])


def test_parts_of_a_table_fit_as_the_whole(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    vectors = rng.normal(5, 3, (10, 3)).astype(np.float32)
    cells = [None if row == 4 else list(part) for row, part in enumerate(vectors)]
    file = tmp_path / "rows.parquet"
    pd.DataFrame({"v": cells}).to_parquet(file)
    settings = Features(columns=FeatureColumns(item=(vector(),)))
    ids = Ids(pd.Index([f"i{n}" for n in range(10)]))
    table, _ = fit_table(settings, "item", OrderedRows(file, 3), ids, tmp_path)
    kept = np.delete(vectors, 4, axis=0)
    deviation = np.sqrt(((kept - kept.mean(0)) ** 2).mean())
    expected = (kept - kept.mean(0)) / deviation
    np.testing.assert_allclose(np.delete(table.numeric[1:], 4, axis=0), expected, atol=1e-5)
    assert not table.numeric[5].any()


@pytest.mark.parametrize(
    ("cells", "says"),
    [
        ([[1, 2], [1, 2, 3]], "'v' of 'y' has 3 numbers, but the vectors of this column have 2"),
        ([[1, 2], [1, np.nan]], "'v' of 'y' has a value that is no finite number"),
        ([[1, 2], [1, np.inf]], "'v' of 'y' has a value that is no finite number"),
        ([[1, 2], [1, None]], "'v' of 'y' has a value that is no finite number"),
        ([[1, 2], [1, 1e300]], "'v' of 'y' has a value that is no finite number"),
        ([[1, 2], "1 2"], "'v' has a cell that is no list of numbers"),
        ([[1, 2], 7.0], "'v' has a cell that is no list of numbers"),
        ([[1, 2], ["a", "b"]], "'v' has a cell that is no list of numbers"),
        ([[1, 2], [[1], [2]]], "'v' has a cell that is no list of numbers"),
        ([[1, 2], {"a": 1}], "'v' has a cell that is no list of numbers"),
    ],
)
def test_a_wrong_vector_is_named(cells: list[object], says: str) -> None:
    with pytest.raises(DataError, match=says):
        read_vectors(pd.Series(cells, index=["x", "y"]), "v", None)


@pytest.mark.parametrize("missing", [None, np.nan, [], np.zeros(0)])
def test_cells_without_a_vector(missing: object) -> None:
    vectors, present = read_vectors(pd.Series([missing, [1, 2]], dtype=object), "v", 2)
    assert vectors.tolist() == [[1, 2]]
    assert present.tolist() == [False, True]


def test_no_vector_at_all_is_refused() -> None:
    with pytest.raises(DataError, match="no row of the training set has a vector in 'v'"):
        VectorScale.fit("standard", "v", [pd.Series([None, []])])
