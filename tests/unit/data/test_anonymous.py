"""Rows without a user id are sessions with ids of their own."""

from __future__ import annotations

import json
from datetime import date
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pydantic import ValidationError

from dssm_core import families
from dssm_core.columns import IMPRESSION, ITEM, TIME, USER
from dssm_core.config import Member, parse_config
from dssm_core.data.landing import land
from dssm_core.errors import DataError
from dssm_core.families import SOURCES
from dssm_core.runs.run import create_run
from dssm_core.runs.transaction import execute

T0 = 1_709_251_200_000  # 2024-03-01 00:00 UTC


def users(folder: Path, kind: str, files: str = "**/*.*", **table: object) -> list[str | None]:
    settings = {"files": files, "anonymous": True, **table}
    source = families.build(SOURCES, Member(kind=kind, path=str(folder), interactions=settings))
    with duckdb.connect() as con:
        rows = source.read(con).interactions.project(USER).fetchall()
    return [user for (user,) in rows]


def test_the_id_is_the_file_the_row_and_its_time(tmp_path: Path) -> None:
    """A file that is added before or after does not change the ids of another."""
    (tmp_path / "b.csv").write_text("item_id,timestamp\nx,5\ny,6\nz,never\n")
    ids = ["b.csv:1:5", "b.csv:2:6", "b.csv:3"]
    assert users(tmp_path, "delimited") == ids
    (tmp_path / "a.csv").write_text("timestamp,item_id,more\n5,x,1\n")
    (tmp_path / "c.csv").write_text("item_id,timestamp\nx,5\n")
    assert users(tmp_path, "delimited") == ["a.csv:1:5", *ids, "c.csv:1:5"]
    assert users(tmp_path / "b.csv", "delimited", "b.csv") == ids


def test_rows_with_a_user_keep_it(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("uid,item_id,timestamp\nu,x,5\n ,y,6\n7.0,z,7\n")
    assert users(tmp_path, "delimited", columns={USER: "uid"}) == ["u", "a.csv:2:6", "7"]


def test_a_session_is_the_impression_if_there_is_one(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("shown,item_id,timestamp\np,x,5\np,y,6\n,z,7\n")
    mapped = {IMPRESSION: "shown"}
    expected = ["impression:p", "impression:p", "a.csv:3:7"]
    assert users(tmp_path, "delimited", columns=mapped) == expected


def test_the_items_of_a_cell_are_one_session(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("at,item_id\n5,x y\n6,z\n")
    explode = {"column": ITEM}
    found = users(tmp_path, "delimited", columns={TIME: "at"}, explode=explode)
    assert found == ["a.csv:1:5", "a.csv:1:5", "a.csv:2:6"]


def test_parquet_and_json(tmp_path: Path) -> None:
    for day in (1, 2):
        (tmp_path / f"day={day}").mkdir()
        rows = pa.table({ITEM: ["x", "y"], TIME: [T0, T0 + day]})
        pq.write_table(rows, tmp_path / f"day={day}" / "part.parquet")
    found = users(tmp_path, "parquet")
    assert found == [
        f"day={day}/part.parquet:{row}:{T0 + (row - 1) * day}" for day in (1, 2) for row in (1, 2)
    ]
    lines = [json.dumps({ITEM: "x", TIME: 5}), json.dumps({ITEM: "y", TIME: 6, USER: "u"})]
    (tmp_path / "log").mkdir()
    for name in ("a", "b"):
        (tmp_path / "log" / f"{name}.jsonl").write_text("\n".join(lines))
    found = users(tmp_path / "log", "json_lines")
    assert found == ["a.jsonl:1:5", "u", "b.jsonl:1:5", "u"]


def test_a_mapped_column_must_be_there_and_another_case_is_no_column(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("User_ID,item_id,timestamp\nu,x,5\n")
    with pytest.raises(DataError, match="no column 'uid'"):
        users(tmp_path, "delimited", columns={USER: "uid"})
    with pytest.raises(DataError, match="'User_ID'"):
        users(tmp_path, "delimited")


@pytest.mark.parametrize("kind", ["delimited", "parquet", "json_lines"])
def test_users_and_items_must_have_ids(kind: str) -> None:
    table = {"files": "a", "anonymous": True}
    for side in ("users", "items"):
        choice = Member(kind=kind, path=".", interactions={"files": "b"}, **{side: table})
        with pytest.raises(ValidationError, match="anonymous is for interactions"):
            families.build(SOURCES, choice)


def test_a_landed_day_has_the_ids_of_the_log(tmp_path: Path) -> None:
    """Two deliveries under one name give different ids, because the times differ."""
    log = tmp_path / "log"
    log.mkdir()
    source = {"kind": "delimited", "path": str(log), "interactions": {"files": "new.csv"}}
    source["interactions"] |= {"anonymous": True}
    split = {"test_day": "2024-03-02", "train_days": 2}
    config = parse_config({"name": "x", "data": {"source": source}, "split": split})
    landed = []
    for day in (date(2024, 3, 1), date(2024, 3, 2)):
        at = T0 + (day.day - 1) * 86_400_000
        (log / "new.csv").write_text(f"item_id,timestamp\nx,{at}\ny,{at + 1}\n")
        own = users(log, "delimited", "new.csv")
        stored, _ = land(config, day, tmp_path / "days")
        file = tmp_path / "days" / "x" / day.isoformat() / stored.key / "interactions.parquet"
        assert pq.read_table(file)[USER].to_pylist() == own
        landed += own
    assert len(set(landed)) == 4


@pytest.mark.parametrize("kept", [True, False])
def test_a_users_table_has_no_row_for_a_session(tmp_path: Path, kept: bool) -> None:
    (tmp_path / "log.csv").write_text(f"user_id,item_id,timestamp\nu,x,{T0}\n,y,{T0 + 1}\n")
    (tmp_path / "users.csv").write_text("user_id\nu\n")
    source = {"kind": "delimited", "path": str(tmp_path), "users": {"files": "users.csv"}}
    source["interactions"] = {"files": "log.csv", "anonymous": True}
    raw = {
        "name": "x",
        "data": {"source": source},
        "split": {"kind": "leave_one_out"},
        "sampler": {"kind": "uniform"},
        "evaluation": {"baselines": ["hot"]},
        "features": {"activity": {"enabled": False}},
        "validation": {"allow_missing": ["users"] if kept else [], "max_quarantine_share": 1},
    }
    run = create_run(parse_config(raw), tmp_path / "runs", "run")
    execute(run, "ingest_data")
    execute(run, "validate_data")
    assert run.need("validate_data").rows["quarantined"] == (0 if kept else 1)
