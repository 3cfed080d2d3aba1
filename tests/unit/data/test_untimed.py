"""Logs without times: the order of the rows is that of the events."""

from __future__ import annotations

import duckdb
import pytest
from pydantic import ValidationError

from dssm_core.columns import ITEM, TIME, USER
from dssm_core.data.sources.delimited import Delimited
from dssm_core.data.sources.parquet import Parquet
from dssm_core.errors import DataError

ROWS = 50_000


def log(path, **more):
    table = {"files": "*.csv", "time_unit": "row", **more}
    return Delimited.model_validate({"path": str(path), "interactions": table})


def read(source):
    with duckdb.connect() as con:
        return source.read(con).interactions.project(f"{USER}, {ITEM}, {TIME}").fetchall()


def test_times_are_the_numbers_of_the_rows(tmp_path):
    """In two files, read by several threads."""
    rows = [f"u{number % 7},i{number}" for number in range(ROWS)]
    for name, part in (("a.csv", rows[: ROWS // 3]), ("b.csv", rows[ROWS // 3 :])):
        (tmp_path / name).write_text("\n".join(["user_id,item_id", *part]) + "\n")
    found = sorted(read(log(tmp_path)), key=lambda row: row[2])
    assert found == [(f"u{number % 7}", f"i{number}", number) for number in range(ROWS)]


def test_a_later_parquet_file_has_later_times(tmp_path):
    for name in ("a", "b"):
        duckdb.sql(
            f"COPY (SELECT '{name}' AS user_id, range AS item_id FROM range(3))"
            f" TO '{tmp_path / name}.parquet'"
        )
    settings = {"files": "*.parquet", "time_unit": "row"}
    source = Parquet.model_validate({"path": str(tmp_path), "interactions": settings})
    found = sorted(read(source), key=lambda row: row[2])
    assert [row[:2] for row in found] == [(name, str(item)) for name in "ab" for item in range(3)]
    assert len({row[2] for row in found}) == 6


def test_a_column_of_times_is_named(tmp_path):
    (tmp_path / "a.csv").write_text("user_id,item_id,Timestamp\n1,2,3\n")
    with pytest.raises(DataError, match="has a column 'Timestamp', but time_unit is 'row'"):
        read(log(tmp_path))
    assert read(log(tmp_path, columns={"other": "Timestamp"})) == [("1", "2", 0)]


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"interactions": {"columns": {TIME: "at"}}}, "reads no times"),
        ({"items": {"files": "items.csv", "time_unit": "row"}}, "is for interactions"),
    ],
)
def test_what_needs_times_is_refused(tmp_path, settings, says):
    table = {"files": "*.csv", "time_unit": "row"} | settings.pop("interactions", {})
    with pytest.raises(ValidationError, match=says):
        Delimited.model_validate({"path": str(tmp_path), "interactions": table, **settings})
