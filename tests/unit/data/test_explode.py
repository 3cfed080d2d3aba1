"""Rows with several items become a row an item, and no row is lost."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pydantic import ValidationError

from dssm_core import families
from dssm_core.columns import ITEM, TIME, USER
from dssm_core.config import Member, parse_config
from dssm_core.data.sources.delimited import Delimited
from dssm_core.errors import DataError
from dssm_core.families import SOURCES
from dssm_core.runs.run import create_run
from dssm_core.runs.transaction import execute

T0 = 1_709_251_200_000  # 2024-03-01 00:00 UTC
MAPPED = {USER: "user", ITEM: "shown", TIME: "at"}


def read(
    folder: Path, kind: str, selected: str, columns: dict[str, str] = MAPPED, **explode: object
) -> list[tuple[Any, ...]]:
    table = {"files": "*.*", "columns": columns, "explode": {"column": "shown", **explode}}
    source = families.build(SOURCES, Member(kind=kind, path=str(folder), interactions=table))
    with duckdb.connect() as con:
        return list(source.read(con).interactions.project(selected).fetchall())


def test_items_and_labels_in_a_text(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(
        "user,at,shown\nu,1,N1-1 N2-0\nv,2,\nw,3, a-b-1  N3 N4- \nx,4,-1\n"
    )
    columns = f"{USER}, {TIME}, {ITEM}, label, impression_id"
    assert read(tmp_path, "delimited", columns, label_after="-") == [
        ("u", 1, "N1", "1", "0"),
        ("u", 1, "N2", "0", "0"),
        ("v", 2, None, None, "1"),
        ("w", 3, "a-b", "1", "2"),
        ("w", 3, "N3", None, "2"),
        ("w", 3, "N4", "", "2"),
        ("x", 4, None, "1", "3"),
    ]


def test_a_separator_of_several_letters_and_the_own_id_of_an_impression(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("user,at,shown,page\nu,1,N1::N2,p7\n")
    columns = {**MAPPED, "impression_id": "page"}
    rows = read(tmp_path, "delimited", f"{ITEM}, impression_id", columns, separator="::")
    assert rows == [("N1", "p7"), ("N2", "p7")]


def test_lists_of_parquet_are_numbered_across_files(tmp_path: Path) -> None:
    for name in ("a", "b"):
        lists = pa.array([[7, 8, None], [], None, [9]], pa.list_(pa.int64()))
        table = {"user": [1, 2, 3, 4], "at": [T0] * 4, "shown": lists}
        pq.write_table(pa.table(table), tmp_path / f"{name}.parquet")
    rows = read(tmp_path, "parquet", f"{USER}, {ITEM}, impression_id")
    first = [("1", "7"), ("1", "8"), ("1", None), ("2", None), ("3", None), ("4", "9")]
    assert [row[:2] for row in rows] == first * 2
    numbers = ["0", "0", "0", "1", "2", "3"]
    assert [row[2] for row in rows] == [*numbers, *(f"1-{number}" for number in numbers)]


def test_lists_of_objects_in_json_have_a_column_for_each_key(tmp_path: Path) -> None:
    shown = [{"id": "a", "label": 1}, {"id": "b", "label": 0, "place": 2}]
    rows = [{"user": 1, "at": 5, "shown": shown}, {"user": 2, "at": 6, "shown": []}]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    columns = {**MAPPED, ITEM: "shown.id", "label": "shown.label"}
    assert read(tmp_path, "json_lines", f'{USER}, {ITEM}, label, "shown.place"', columns) == [
        ("1", "a", 1, None),
        ("1", "b", 0, 2),
        ("2", None, None, None),
    ]
    with pytest.raises(DataError, match="label_after is for items that are text"):
        read(tmp_path, "json_lines", "*", {**MAPPED, ITEM: "shown.id"}, label_after="-")
    (tmp_path / "a.jsonl").write_text('{"user": 1, "at": 5, "shown": [7, "x", "1.0"]}\n')
    assert [row[0] for row in read(tmp_path, "json_lines", ITEM)] == ["7", "x", "1"]


def test_what_cannot_be_exploded_is_said(tmp_path: Path) -> None:
    pq.write_table(pa.table({"user": [1], "at": [T0], "shown": [7]}), tmp_path / "a.parquet")
    with pytest.raises(DataError, match=r"explode.column 'shown' has the type BIGINT, but must"):
        read(tmp_path, "parquet", "*")
    with pytest.raises(DataError, match="no column 'shows', which explode names: did you mean 'sh"):
        read(tmp_path, "parquet", "*", **{"column": "shows"})
    table = {
        "files": "*",
        "columns": {"label": "x"},
        "explode": {"column": "s", "label_after": "-"},
    }
    with pytest.raises(
        ValidationError, match=r"columns maps 'label' to 'x', and explode.label_aft"
    ):
        Delimited.model_validate({"path": ".", "interactions": table})
    for wrong in ({"separator": ""}, {"separator": "a\0"}, {"label_after": "12345"}, {"sep": ","}):
        with pytest.raises(ValidationError):
            Delimited.model_validate(
                {"path": ".", "interactions": {"files": "*", "explode": {"column": "s", **wrong}}}
            )
    (tmp_path / "a.parquet").unlink()
    (tmp_path / "a.csv").write_text("user,at,shown,label\nu,1,N1-1,1\n")
    with pytest.raises(DataError, match=r"explode.label_after makes one"):
        read(tmp_path, "delimited", "*", label_after="-")


def test_rows_are_counted_after_exploding_and_all_are_accounted_for(tmp_path: Path) -> None:
    """72 impressions of 3 items of which the first is clicked, one without an item, and one whose
    last label is missing.
    """
    lines = [f"u{n % 3},{T0 + n * 3_600_000},i{n % 5}-1 i{n % 5 + 5}-0 x-y-0" for n in range(72)]
    lines += [f"u0,{T0 + 1},", f"u1,{T0 + 2},i1-1 i2"]
    (tmp_path / "a.csv").write_text("user,at,shown\n" + "\n".join(lines) + "\n")
    explode = {"column": "shown", "label_after": "-"}
    table = {"files": "*.csv", "columns": MAPPED, "explode": explode}
    raw = {
        "name": "t",
        "data": {"source": {"kind": "delimited", "path": str(tmp_path), "interactions": table}},
        "split": {"test_day": "2024-03-03", "train_days": 2},
        "evaluation": {"ks": [1]},
        "gate": {"k": 1},
    }
    run = create_run(parse_config(raw), tmp_path / "runs", "r")
    manifests = [execute(run, step) for step in ("ingest_data", "validate_data", "split_by_time")]
    assert manifests[-1].rows == {
        "read": 72 * 3 + 3,
        "train": 48 * 3 + 1,
        "test": 24 * 3,
        "outside": 0,
        "quarantined": 2,
    }
    quarantine = pq.read_table(run.step("validate_data") / "quarantine.parquet").to_pydict()
    assert quarantine["reason"] == ["item_id must not be missing", "label must not be missing"]
    train = pq.read_table(run.step("split_by_time") / "train.parquet").to_pandas()
    assert train["label"].sum() == 48 + 1
    assert set(train[train["label"] == 0][ITEM]) == {"x-y", *(f"i{n}" for n in range(5, 10))}
