"""How values and names of columns are coded, whatever their type and their letters."""

from datetime import date
from decimal import Decimal

import numpy as np
import pandas as pd
import pytest

from dssm_core.config import Feature, FeatureColumns, Features
from dssm_core.features.ids import Hashed, Ids, as_text
from dssm_core.features.tables import encode_context, encode_table, fit_context, fit_table

ITEMS = Ids.fit(pd.Series(["a", "b", "c"]))
SEVENS = [
    pd.Series([7, 8]),
    pd.Series([7.0, 8.0]),
    pd.Series([7.0, 8.0], dtype=np.float32),
    pd.Series(["7", "8"]),
    pd.Series(["7.0", "8.00"]),
    pd.Series([Decimal("7.00"), Decimal(8)], dtype=object),
    pd.Series([7, 8, None], dtype=object).head(2),
    pd.Series([7, None, 8], dtype="Int64").dropna(),
]


def context(*columns, **changes):
    of = [Feature(column=column, kind="categorical", **changes) for column in columns]
    return Features(columns=FeatureColumns(context=tuple(of)))


@pytest.mark.parametrize("train", SEVENS)
@pytest.mark.parametrize("buckets", [None, 50])
def test_whole_numbers_are_one_category_whatever_their_type(tmp_path, train, buckets):
    features = context("place", buckets=buckets)
    codes, _ = fit_context(features, pd.DataFrame({"place": train}), tmp_path)
    assert codes[0][0] != codes[0][1]
    for asked in SEVENS:
        rows = pd.DataFrame({"place": asked})
        assert encode_context(features.columns, rows, tmp_path)[:, 0].tolist() == codes[0].tolist()


def test_a_log_that_writes_one_number_in_two_ways_has_one_category(tmp_path):
    rows = pd.DataFrame({"place": ["7", "7.0", "8", "7.5", "007"]})
    codes, (column,) = fit_context(context("place"), rows, tmp_path)
    assert codes[0].tolist() == [2, 2, 4, 3, 1]
    assert column.size == 5


@pytest.mark.parametrize(
    ("train", "asked"),
    [
        ([date(2024, 3, 1), date(2024, 3, 2)], ["2024-03-01", "2024-03-02"]),
        ([Decimal("7.50"), Decimal("8.25")], [7.5, 8.25]),
        ([True, False], [True, False]),
        (np.array([0.1, 7.7], dtype=np.float32), [0.1, 7.7]),
        ([2**60, 5], [2**60, 5]),
    ],
)
def test_a_request_means_what_training_saw(tmp_path, train, asked):
    """asked: the values as JSON has them."""
    features = context("x")
    codes, _ = fit_context(features, pd.DataFrame({"x": train}), tmp_path)
    rows = pd.DataFrame({"x": asked})
    assert encode_context(features.columns, rows, tmp_path)[:, 0].tolist() == codes[0].tolist()
    assert sorted(codes[0].tolist()) == [1, 2]


def test_codes_follow_the_order_of_numbers_not_of_their_text(tmp_path):
    codes, _ = fit_context(context("x"), pd.DataFrame({"x": [10, 9, 100]}), tmp_path)
    assert codes[0].tolist() == [2, 1, 3]


def test_a_vocabulary_of_numbers_that_an_earlier_version_wrote(tmp_path):
    Ids.fit(pd.Series([9, 10])).save(tmp_path / "vocabulary.context.x.parquet", "x")
    columns = context("x").columns
    asked = pd.DataFrame({"x": ["10", "9", "11"]})
    assert encode_context(columns, asked, tmp_path)[:, 0].tolist() == [2, 1, 0]


def test_text_of_numbers():
    values = [Decimal("1E+2"), Decimal("0.10"), 1.5, "1.50", "v1.0.0", None, 3.0]
    texts = as_text(pd.Series(values, dtype=object))
    assert texts[texts.notna()].tolist() == ["100", "0.1", "1.5", "1.50", "v1.0.0", "3"]
    assert Hashed(1000).encode([Decimal("0.10")]) == Hashed(1000).encode([0.1])


@pytest.mark.parametrize(
    "name",
    [
        "price/unit",
        "..",
        "../x",
        "a\\b",
        "100%",
        "%2Fx",
        "what?",
        "#1",
        "a" * 230,
        "é" * 120,
        "price (€)",
    ],
)
def test_any_name_of_a_column(tmp_path, name):
    folder = tmp_path / "work"
    folder.mkdir()
    number = Feature(column=name, kind="numeric", normaliser="none")
    kind = Feature(column=name + "2", kind="categorical")
    features = Features(columns=FeatureColumns(item=(number, kind)))
    rows = pd.DataFrame({"item_id": ["a", "b"], name: [1.0, 2.0], name + "2": ["x", "y"]})
    table, _ = fit_table(features, "item", rows, ITEMS, folder)
    assert table.numeric[:, 0].tolist() == [0, 1, 2, 0]
    new = encode_table(features.columns, "item", rows, folder)
    assert new.categorical.tolist() == [[1], [2]]
    assert [path.name for path in tmp_path.iterdir()] == ["work"]
    assert all(path.is_file() for path in folder.iterdir())


def test_names_that_a_disk_takes_are_those_of_the_files(tmp_path):
    fit_context(context("price (€)"), pd.DataFrame({"price (€)": ["x"]}), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["vocabulary.context.price (€).parquet"]


@pytest.mark.parametrize("values", [[], [None, None], ["7", None, "7.0", "b"]])
def test_the_text_of_repeated_values_is_that_of_each(values):
    texts = as_text(pd.Series([*values, *values], dtype="str"))
    alone = [as_text(pd.Series([value], dtype=object)).tolist()[0] for value in values]
    expected = [None if value is None else text for value, text in zip(values, alone, strict=True)]
    assert texts.astype(object).where(texts.notna(), None).tolist() == [*expected, *expected]
