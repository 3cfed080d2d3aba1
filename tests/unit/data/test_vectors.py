"""Vectors in every source and file become one column of lists; wrong ones are named."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dssm_core.config import parse_config
from dssm_core.errors import ConfigError, DataError
from dssm_core.runs.run import Run, create_run
from dssm_core.runs.transaction import execute
from tests.conftest import small_config

T0 = 1_709_251_200_000  # 2024-03-01 00:00 UTC
HOUR = 3_600_000
IDS = ["i0", "i1", "i2"]
VECTORS = [[0.5, -1.0], [2.0, 3.0], [4.0, 5.5]]


def log(folder: Path) -> pd.DataFrame:
    """72 rows, one an hour of 1 to 3 March 2024."""
    hours = np.arange(72)
    rows = pd.DataFrame(
        {
            "user_id": [f"u{hour % 2}" for hour in hours],
            "item_id": [IDS[hour % 3] for hour in hours],
            "timestamp": T0 + hours * HOUR,
        }
    )
    rows.to_csv(folder / "log.csv", index=False)
    rows.to_parquet(folder / "log.parquet")
    rows.to_json(folder / "log.jsonl", orient="records", lines=True)
    return rows


def run_of(folder: Path, items: str | None = "items.parquet", **vector: object) -> Run:
    """A run on a log with an items table of this name."""
    suffix = Path(items or "log.parquet").suffix
    kind = {".parquet": "parquet", ".csv": "delimited", ".jsonl": "json_lines"}[suffix]
    source: dict[str, Any] = {"kind": kind, "path": str(folder)}
    source |= {"interactions": {"files": f"log{suffix}"}}
    source |= {"items": {"files": items}} if items else {}
    feature = {"column": "v", "kind": "vector"} | vector
    raw = small_config(
        data={"source": source},
        features={"columns": {"item": [feature]}},
        split={"test_day": "2024-03-03", "train_days": 2},
    )
    runs = folder / f"runs-{len(list(folder.iterdir()))}"
    return create_run(parse_config(raw), runs, "vectors")


def ingested(run: Run) -> list[Any]:
    """The vectors of the items, in the order of the ids."""
    execute(run, "ingest_data")
    rows = pq.read_table(run.step("ingest_data") / "items.parquet").to_pylist()
    return [row["v"] for row in sorted(rows, key=lambda row: row["item_id"])]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    log(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    "cells",
    [
        ["[0.5, -1.0]", "[2, 3]", "[4 5.5]"],
        ["0.5 -1", "2  3", " 4 5.5 "],
        ["0.5;-1", "2;3", "4; 5.5"],
        ["(0.5, -1)", "2|3", "4e0,55e-1"],
    ],
)
def test_text_is_a_vector(folder: Path, cells: list[str]) -> None:
    pd.DataFrame({"item_id": IDS, "v": cells}).to_csv(folder / "items.csv", index=False)
    assert ingested(run_of(folder, "items.csv")) == VECTORS


def test_lists_of_json_and_parquet_are_vectors(folder: Path) -> None:
    rows = [{"item_id": name, "v": cell} for name, cell in zip(IDS, VECTORS, strict=True)]
    (folder / "items.jsonl").write_text("\n".join(map(json.dumps, rows)))
    pd.DataFrame(rows).to_parquet(folder / "items.parquet")
    assert ingested(run_of(folder, "items.jsonl")) == VECTORS
    assert ingested(run_of(folder)) == VECTORS
    fixed = pa.FixedSizeListArray.from_arrays(pa.array(np.ravel(VECTORS)), 2)
    pq.write_table(pa.table({"item_id": IDS, "v": fixed}), folder / "items.parquet")
    assert ingested(run_of(folder)) == VECTORS


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.int64])
@pytest.mark.parametrize("ids", ["ids.txt", "ids.npy", "ids.parquet"])
def test_a_file_by_id_is_a_column(folder: Path, ids: str, dtype: type) -> None:
    """The rows of the file are in another order, and have an item more."""
    pd.DataFrame({"item_id": [*IDS, "i3"]}).to_parquet(folder / "items.parquet")
    order = ["i2", "other", "i0", "i1"]
    array = np.array([[4, 6], [0, 0], [1, -1], [2, 3]], dtype=dtype)
    np.save(folder / "v.npy", array)
    np.save(folder / "ids.npy", np.array(order))
    (folder / "ids.txt").write_text("\r\n".join(order) + "\r\n", newline="")
    pd.DataFrame({"any": order}).to_parquet(folder / "ids.parquet")
    run = run_of(folder, file=str(folder / "v.npy"), ids=str(folder / ids))
    assert ingested(run) == [[1, -1], [2, 3], [4, 6], None]


def test_a_table_of_vectors_is_joined_by_id_and_is_part_of_the_key(folder: Path) -> None:
    pd.DataFrame({"item_id": IDS}).to_parquet(folder / "items.parquet")
    file = folder / "vectors.parquet"
    pd.DataFrame({"item_id": IDS[::-1], "v": VECTORS[::-1]}).to_parquet(file)
    run = run_of(folder, file=str(file))
    assert ingested(run) == VECTORS
    key = run.need("ingest_data").key
    pd.DataFrame({"item_id": IDS, "v": VECTORS[::-1]}).to_parquet(file)
    assert ingested(run) == VECTORS[::-1]
    assert run.need("ingest_data").key != key


def test_a_log_without_a_table_has_the_ids_of_the_file_and_of_the_log(folder: Path) -> None:
    pd.DataFrame({"item_id": ["i1", "new"], "v": VECTORS[:2]}).to_parquet(folder / "v.parquet")
    assert ingested(run_of(folder, None, file=str(folder / "v.parquet"))) == [
        None,  # i0
        VECTORS[0],
        None,  # i2
        VECTORS[1],
    ]


def test_columns_of_several_files_keep_the_order_of_the_rows(folder: Path) -> None:
    ids = [f"i{number}" for number in np.random.default_rng(0).permutation(50)]
    pd.DataFrame({"item_id": ids}).to_parquet(folder / "items.parquet")
    pd.DataFrame({"item_id": IDS, "v": VECTORS}).to_parquet(folder / "v.parquet")
    np.save(folder / "w.npy", np.eye(2))
    (folder / "ids.txt").write_text("i9\ni2")
    raw = run_of(folder, file=str(folder / "v.parquet")).config.model_dump(mode="json")
    files = {"file": str(folder / "w.npy"), "ids": str(folder / "ids.txt")}
    raw["features"]["columns"]["item"].append({"column": "w", "kind": "vector"} | files)
    raw["features"]["columns"]["user"] = [raw["features"]["columns"]["item"][-1]]
    run = create_run(parse_config(raw), folder / "more", "vectors")
    execute(run, "ingest_data")
    rows = pd.read_parquet(run.step("ingest_data") / "items.parquet")
    assert rows["item_id"].tolist() == ids
    for name, cell in zip(IDS, VECTORS, strict=True):
        assert rows["v"][ids.index(name)].tolist() == cell
    assert rows["w"].notna().sum() == 2
    assert rows["w"][ids.index("i2")].tolist() == [0, 1]
    users = pd.read_parquet(run.step("ingest_data") / "users.parquet")
    assert users["user_id"].tolist() == ["i2", "i9", "u0", "u1"]


def test_whole_numbers_are_the_same_ids_in_any_form(folder: Path) -> None:
    pd.DataFrame({"item_id": ["7", "8"]}).to_parquet(folder / "items.parquet")
    np.save(folder / "v.npy", np.eye(2))
    np.save(folder / "ids.npy", np.array([8.0, 7.0]))
    run = run_of(folder, file=str(folder / "v.npy"), ids=str(folder / "ids.npy"))
    assert ingested(run) == [[0, 1], [1, 0]]


def files(folder: Path, vectors: Any, ids: list[str]) -> dict[str, str]:
    pd.DataFrame({"item_id": IDS}).to_parquet(folder / "items.parquet")
    np.save(folder / "v.npy", vectors)
    (folder / "ids.txt").write_text("".join(f"{name}\n" for name in ids))
    return {"file": str(folder / "v.npy"), "ids": str(folder / "ids.txt")}


@pytest.mark.parametrize(
    ("vectors", "ids", "says"),
    [
        (np.eye(3), ["i0", "i1"], "has 3 vectors, and '.*ids.txt' 2 ids"),
        (np.eye(3), ["i0", "i1", "i0"], "1 ids are in '.*ids.txt' more than once .*'i0'"),
        (np.zeros((0, 3)), ["i0"], "has 0 vectors, and '.*ids.txt' 1 ids"),
        (np.eye(3), ["i0", "", "i2"], "1 rows of '.*ids.txt' have no id"),
        (np.ones(3), IDS, r"shape \(3,\): it must have numbers, a vector in each row"),
        (np.array([["a"]]), ["i0"], "it must have numbers"),
        (np.array([[1.0], None], dtype=object), IDS, "write it with numpy.save"),
    ],
)
def test_wrong_files_are_refused(folder: Path, vectors: Any, ids: list[str], says: str) -> None:
    with pytest.raises(DataError, match=says):
        ingested(run_of(folder, **files(folder, vectors, ids)))


def test_a_missing_file_or_column_is_named(folder: Path) -> None:
    pd.DataFrame({"item_id": IDS}).to_parquet(folder / "items.parquet")
    with pytest.raises(DataError, match=r"no file 'none.parquet', which features.columns names"):
        ingested(run_of(folder, file="none.parquet"))
    pd.DataFrame({"item_id": IDS, "w": VECTORS}).to_parquet(folder / "vectors.parquet")
    with pytest.raises(
        DataError, match=r"vectors.parquet' has no column 'v': it needs the ids as 'item_id'"
    ):
        ingested(run_of(folder, file=str(folder / "vectors.parquet")))
    pd.DataFrame({"item_id": IDS, "v": VECTORS}).to_parquet(folder / "items.parquet")
    with pytest.raises(DataError, match=r"items have a column 'v', and .* names the file"):
        ingested(run_of(folder, file=str(folder / "items.parquet")))


def validated(run: Run) -> Run:
    for name in ("ingest_data", "validate_data"):
        execute(run, name)
    return run


@pytest.mark.parametrize(
    ("cells", "says"),
    [
        ([1.0, 2.0, 3.0], "'v' has the type double, but kind vector needs a list of numbers"),
        ([[[1]], [[2]], [[3]]], "'v' has the type list<.*, but kind vector needs a list"),
    ],
)
def test_a_column_without_vectors_is_refused(folder: Path, cells: list[Any], says: str) -> None:
    pd.DataFrame({"item_id": IDS, "v": cells}).to_parquet(folder / "items.parquet")
    with pytest.raises(DataError, match=says):
        validated(run_of(folder))


def test_wrong_vectors_refuse_the_log(folder: Path) -> None:
    cells = ["1 2", "3 4 5", "6 x", "nan 7", "8 -inf", "1e300 2", "9 9"]
    rows = pd.DataFrame({"item_id": [*IDS, "i3", "i4", "i5", "i6"], "v": cells})
    rows.to_csv(folder / "items.csv", index=False)
    with pytest.raises(DataError) as error:
        validated(run_of(folder, "items.csv"))
    says = str(error.value)
    assert "v must be vectors of one length, of finite numbers, but this fails for 5 of 7" in says
    assert "i1: 3 numbers, the first vector has 2" in says
    for name in ("i2", "i3", "i4", "i5"):
        assert f"{name}: a value that is no finite number" in says


def test_missing_vectors_are_counted_and_do_not_refuse_the_log(folder: Path) -> None:
    pd.DataFrame({"item_id": IDS, "v": [[1, 2], None, []]}).to_parquet(folder / "items.parquet")
    (warning,) = validated(run_of(folder)).need("validate_data").info["drift"]
    assert "v should not be missing, but this fails for 2 of 3 rows" in warning


@pytest.mark.parametrize(
    ("vector", "says"),
    [
        ({"buckets": 5}, "vector column 'v' has no use for buckets"),
        ({"pooling": "max"}, "vector column 'v' has no use for pooling"),
        ({"normaliser": "rank"}, "vector column 'v' has no normaliser 'rank'"),
        ({"file": "v.csv"}, "must end in .parquet or .npy"),
        ({"file": "v.npy"}, "`ids` names the id of each row"),
        ({"file": "v.parquet", "ids": "ids.txt"}, "`ids` names the id of each row"),
        ({"ids": "ids.txt"}, "`ids` names the id of each row"),
        ({"file": "v.npy", "ids": "ids.csv"}, "must end in .parquet, .npy, .txt"),
        ({"column": "item_id"}, "has the name of ids"),
        ({"kind": "categorical", "file": "v.npy"}, "categorical column 'v' has no use for file"),
        ({"kind": "categorical", "dim": 0}, "column 'v' has dim 0"),
        ({"kind": "numeric", "normaliser": "length"}, "numeric column 'v' has no normaliser"),
        ({"dim": -1}, "greater than or equal to 0"),
    ],
)
def test_settings_of_other_kinds_are_refused(vector: dict[str, object], says: str) -> None:
    feature = {"column": "v", "kind": "vector"} | vector
    with pytest.raises(ConfigError, match=says):
        parse_config(small_config(features={"columns": {"item": [feature]}}))


def test_an_items_vector_is_no_table_to_share() -> None:
    item = {"column": "v", "kind": "vector"}
    user = {"column": "likes", "kind": "multi", "shares": "v"}
    with pytest.raises(ConfigError, match=r"the item columns are item_id$"):
        parse_config(small_config(features={"columns": {"item": [item], "user": [user]}}))
