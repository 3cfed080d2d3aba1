"""Great Expectations judges; broken rows are set aside with a reason, a broken log is refused with
every reason.
"""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import duckdb
import pandas as pd
import pytest

from dssm_core.columns import ROW
from dssm_core.config import parse_config, read_config
from dssm_core.data.expectations import Judge
from dssm_core.data.frames import row_frames, valid_rows
from dssm_core.data.ingest import read_ingested
from dssm_core.data.rules import row_rules
from dssm_core.data.sql import numbered_rows
from dssm_core.data.verdicts import Verdict, broken_rows
from dssm_core.errors import DataError
from dssm_core.runs.run import Run, create_run
from dssm_core.runs.transaction import execute

REPO = Path(__file__).resolve().parents[3]
T0 = 1_709_251_200_000  # 2024-03-01 00:00 UTC
HOUR = 3_600_000
STEPS = ("ingest_data", "validate_data", "split_by_time")


def write_log(
    folder: Path,
    extra: list[str],
    users: str = "user_id,country\n0,de\n1,fr\n",
    items: str | None = None,
) -> None:
    """72 good rows, one an hour of 1 to 3 March 2024, then `extra` lines."""
    folder.mkdir(exist_ok=True)
    good = [f"{hour % 2},i{hour % 5},{T0 + hour * HOUR},{hour % 2},{hour}" for hour in range(72)]
    (folder / "log.csv").write_text(
        "\n".join(["user_id,item_id,timestamp,label,seconds", *good, *extra]) + "\n"
    )
    (folder / "users.txt").write_text(users)
    (folder / "items.txt").write_text(
        items or "item_id,words\n" + "".join(f"i{i},{i}\n" for i in range(5))
    )


def make_run(
    folder: Path, validation: dict[str, object] | None = None, **features: list[dict[str, str]]
) -> Run:
    tables = {
        "interactions": {"files": "log.csv"},
        "users": {"files": "users.txt"},
        "items": {"files": "items.txt"},
    }
    raw = {
        "name": "t",
        "data": {"source": {"kind": "delimited", "path": str(folder), **tables}},
        "validation": validation or {},
        "split": {"test_day": "2024-03-03", "train_days": 2},
        "evaluation": {"ks": [1]},
        "gate": {"k": 1},
        "features": {"columns": features},
    }
    return create_run(parse_config(raw), folder / "runs", "r")


BROKEN = {
    f"0,i0,{T0 + 1},2,1": "label must be one of 0, 1",
    f"0,i0,{T0 + 2},,1": "label must not be missing",
    f"0,i0,{T0 + 3},yes,1": "label must be a number",
    "0,i0,noon,1,1": "timestamp must be a time",
    "0,i0,,1,1": "timestamp must not be missing",
    f",i0,{T0 + 4},1,1": "user_id must not be missing",
    f"0,,{T0 + 5},1,1": "item_id must not be missing",
    f"9,i0,{T0 + 6},1,1": "user_id must be in users",
    f"0,i9,{T0 + 7},1,1": "item_id must be in items",
    f"0,i0,{T0 + 8},1,-3": "seconds must lie in 0 to inf",
    f"0,i0,{T0 + 9},1,long": "seconds must be a number",
}


def test_broken_rows_are_set_aside_with_their_reason_and_no_row_is_lost(tmp_path: Path) -> None:
    outside = [f"9,i9,{T0 - 1},7,-1", f"0,i0,{T0 + 72 * HOUR},1,1"]  # not judged, only counted
    write_log(tmp_path, [*BROKEN, *outside])
    run = make_run(tmp_path, {"max_quarantine_share": 0.2, "ranges": {"seconds": [0, None]}})
    manifests = {step: execute(run, step) for step in STEPS}
    quarantine = pd.read_parquet(run.step("validate_data") / "quarantine.parquet")
    assert sorted(quarantine["reason"]) == sorted(BROKEN.values())
    assert quarantine.loc[
        quarantine["reason"] == "timestamp must be a time", "_dssm_raw_timestamp"
    ].tolist() == ["noon"]
    assert quarantine.loc[
        quarantine["reason"] == "label must be a number", "_dssm_raw_label"
    ].tolist() == ["yes"]
    assert manifests["validate_data"].rows == {"read": 85, "clean": 74, "quarantined": 11}
    assert manifests["validate_data"].info["judged"] == 83
    assert manifests["split_by_time"].rows == {
        "read": 85,
        "train": 48,
        "test": 24,
        "outside": 2,
        "quarantined": 11,
    }
    clean = pd.read_parquet(run.step("validate_data") / "interactions.parquet")
    assert list(clean.columns) == ["user_id", "item_id", "timestamp", "label", "seconds"]
    pages = {page.name for page in (run.step("validate_data") / "data_docs").rglob("*.html")}
    assert "index.html" in pages
    page = (run.step("validate_data") / "data_checks.html").read_text()
    assert "The log was accepted." in page
    assert "11 of 11 rows; all are in quarantine.parquet." in page
    assert "<td>label must be a number</td>" in page
    assert not re.search(r"""(src|href)=["'](?!#|data:)""", page)  # nothing from elsewhere


def refusal(run: Run) -> str:
    execute(run, "ingest_data")
    with pytest.raises(DataError) as error:
        execute(run, "validate_data")
    assert not run.step("validate_data").exists()
    return str(error.value)


def test_too_many_broken_rows_refuse_the_log_and_the_docs_survive(tmp_path: Path) -> None:
    write_log(tmp_path, list(BROKEN))
    run = make_run(tmp_path, {"max_quarantine_share": 0.1})
    message = refusal(run)
    assert "label must be one of 0, 1, but this fails for 1 of 83 rows (for example 2.0)" in message
    assert (
        "at least 10.84% of the rows would be quarantined" in message
    )  # 9 of 83: seconds has no range here
    pages = list((run.failed("validate_data") / "data_docs" / "validations").rglob("*.html"))
    assert (run.failed("validate_data") / "data_docs" / "index.html").is_file()
    assert any("label must be one of 0, 1" in page.read_text() for page in pages)
    page = (run.failed("validate_data") / "data_checks.html").read_text()
    assert "The log was refused: nothing was trained." in page
    assert "at least 10.84% of the rows would be quarantined" in page
    assert "The log was refused, so that no row was moved." in page


def test_a_rule_that_most_rows_break_is_counted_without_listing_them(tmp_path: Path) -> None:
    write_log(tmp_path, [])
    (tmp_path / "users.txt").write_text("user_id,country\n0,de\n")
    message = refusal(make_run(tmp_path))
    assert "user_id must be in users, but this fails for 36 of 72 rows (for example '1')" in message
    assert "at least 50.00% of the rows" in message


def test_every_failure_of_the_log_is_named_at_once(tmp_path: Path) -> None:
    write_log(
        tmp_path,
        [],
        users="user_id,country\n0,de\n0,fr\n1,fr\n",
        items="item_id,words\ni0,1\ni0,2\ni1,x\ni2,\ni3,\ni4,\n",
    )
    columns = {
        "user": [("contry", "categorical")],
        "item": [("words", "numeric")],
        "context": [("device", "categorical")],
    }
    features = {
        side: [{"column": column, "kind": kind} for column, kind in pairs]
        for side, pairs in columns.items()
    }
    message = refusal(
        make_run(tmp_path, {"min_rows_per_day": 25, "ranges": {"secs": [0, 1]}}, **features)
    )
    for part in (
        "each day of the window must have at least 25 rows, but this fails for 3 of 3 days"
        " (for example 2024-03-01: 24, 2024-03-02: 24",
        "the log has 2024-03-01 to 2024-03-03",
        "interactions: there must be a column 'device'",
        "users: there must be a column 'contry', which the config names; did you mean 'country'?",
        "users: user_id must be unique, but this fails for 2 of 3 rows (for example '0')",
        "items: item_id must be unique, but this fails for 2 of 6 rows (for example 'i0')",
        "items: words must be a number, but this fails for 1 of 6 rows (for example 'x')",
        "validation.ranges names 'secs', which no table has: did you mean 'seconds'?",
    ):
        assert part in message


def test_tables_that_are_not_there_are_named_at_once(tmp_path: Path) -> None:
    write_log(tmp_path, [])
    columns = [{"column": "age", "kind": "numeric"}, {"column": "sex", "kind": "categorical"}]
    raw = make_run(tmp_path, user=columns, item=columns[:1], context=columns[1:]).config.model_dump(
        mode="json"
    )
    raw["data"]["source"] = {
        "kind": "delimited",
        "path": str(tmp_path),
        "interactions": {"files": "log.csv"},
    }
    message = refusal(create_run(parse_config(raw), tmp_path / "runs", "none"))
    for part in (
        "names age, sex of users, but the source has no users table",
        "names age of items",
        "there must be a column 'sex'",
    ):
        assert part in message


def test_a_range_needs_its_column_in_one_table_only(tmp_path: Path) -> None:
    write_log(tmp_path, [], users="user_id,age\n0,200\n1,30\n")
    message = refusal(
        make_run(
            tmp_path,
            {"ranges": {"age": [0, 120], "words": [0, 4], "seconds": [0, 71], "wrds": [0, 1]}},
        )
    )
    assert message.splitlines()[:-2] == [
        "validation.ranges names 'wrds', which no table has: did you mean 'words'?",
        "users: age must lie in 0 to 120, but this fails for 1 of 2 rows (for example 200.0); fix"
        " the rows, or widen validation.ranges",
    ]


def test_valid_rows_by_sql_are_the_clean_rows(tmp_path: Path) -> None:
    write_log(tmp_path, [*BROKEN])
    run = make_run(tmp_path, {"max_quarantine_share": 0.2, "ranges": {"seconds": [0, 70.5]}})
    for step in STEPS[:2]:
        execute(run, step)
    folder = run.step("ingest_data")
    clean = pd.read_parquet(run.step("validate_data") / "interactions.parquet")
    with duckdb.connect() as con:
        con.execute(f"CREATE VIEW log AS {numbered_rows(folder / 'interactions.parquet')}")
        rows = valid_rows(run.config, read_ingested(folder))
        kept = con.sql(
            f"SELECT timestamp FROM log WHERE {ROW} IN ({rows}) ORDER BY {ROW}"
        ).fetchall()
    assert [time for (time,) in kept] == clean["timestamp"].tolist()
    assert len(clean) == 71  # of the good ones the last took 71 seconds


def judged(run: Run, rows_at_once: dict[str, int], docs: Path) -> list[Verdict]:
    tables = read_ingested(run.step("ingest_data"))
    judge = Judge(docs, 0.3)
    verdicts = []
    with duckdb.connect() as con:
        con.execute(f"CREATE VIEW log AS {numbered_rows(tables.file('interactions'))}")
        for table in tables:
            rules = row_rules(run.config, table, tables)
            frames = row_frames(con, run.config, table, tables, rows_at_once.get(table))
            verdicts += judge.judge(table, frames, rules, ROW, frames.rows)
    return verdicts


def test_parts_are_judged_as_the_whole(tmp_path: Path) -> None:
    """Rows, numbers and examples of every rule are the same if the log is judged in parts."""
    lines = [*BROKEN, *(f"9,i0,{T0 + 9 + n},1,1" for n in range(9))]
    users = "user_id,country\n0,de\n1,fr\n2,de\n1,fr\n,x\n3,de\n0,de\n4,fr\n"
    write_log(tmp_path, lines, users=users)
    run = make_run(tmp_path, {"ranges": {"seconds": [0, 60]}})
    execute(run, "ingest_data")
    whole = judged(run, {}, tmp_path / "whole")
    # The last part of the interactions has more broken rows than sound ones.
    at_once = {"interactions": 40, "users": 3, "items": 3}
    parts = judged(run, at_once, tmp_path / "parts")
    assert sum(verdict.broken > 0 for verdict in whole) > 10
    assert {verdict.rule.kind for verdict in whole if not verdict.passed} >= {
        "ExpectColumnValuesToBeUnique",
        "ExpectColumnValuesToBeInSet",
    }
    for one, two in zip(whole, parts, strict=True):
        assert replace(one, rows=two.rows) == two
        assert sorted(one.rows.tolist()) == sorted(two.rows.tolist())
    rows, first = broken_rows(parts)
    assert len(rows) == len({*rows.tolist()}) == len(first)


def test_an_empty_window_names_the_days_there_are(tmp_path: Path) -> None:
    write_log(tmp_path, [])
    run = make_run(tmp_path)
    other = run.config.model_dump(mode="json") | {
        "split": {"test_day": "2025-01-10", "train_days": 2}
    }
    message = refusal(create_run(parse_config(other), tmp_path / "runs", "r"))
    assert "some rows must lie in the window 2025-01-08 to 2025-01-10 (UTC)" in message
    assert "each day of the window" not in message  # it would only repeat it
    assert "the log has 2024-03-01 to 2024-03-03" in message


DAYS_OF_LOG = "it would have 2024-03-01 to 2024-03-03"


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"time_unit": "us"}, "the log has 1970-01-20 to 1970-01-20; with time_unit ms"),
        ({"time_unit": "s"}, "the log has no row with a time; with time_unit ms"),
        ({"time_unit": "iso"}, "the log has no row with a time; with time_unit ms"),
        ({"time_format": "%Y-%m-%d"}, "the log has no row with a time; with time_unit ms"),
    ],
)
def test_a_wrong_time_unit_is_suggested(
    tmp_path: Path, settings: dict[str, str], sentence: str
) -> None:
    write_log(tmp_path, [])
    raw = make_run(tmp_path).config.model_dump(mode="json")
    raw["data"]["source"]["interactions"] |= settings
    message = refusal(create_run(parse_config(raw), tmp_path / "runs", "other"))
    assert f"{sentence} {DAYS_OF_LOG}" in message
    assert "timestamp must not be missing" not in message


@pytest.mark.parametrize(("factor", "unit"), [(1e-3, "s"), (1e3, "us"), (0.0, "iso")])
def test_the_unit_of_a_file_is_suggested(tmp_path: Path, factor: float, unit: str) -> None:
    """The log is read in ms. Of 79 times, 7 are odd."""
    times = [T0 + hour * HOUR for hour in range(72)]
    cells = [str(int(time * factor)) for time in times]
    if unit == "iso":
        cells = [datetime.fromtimestamp(time / 1000, UTC).isoformat() for time in times]
    assert f"with time_unit {unit} {DAYS_OF_LOG}" in refused_times(
        tmp_path, [*cells, "noon", *["0"] * 6]
    )


def test_times_that_no_unit_makes_right_have_no_suggestion(tmp_path: Path) -> None:
    message = refused_times(tmp_path, [str(number) for number in range(72)])
    assert "the log has 1970-01-01 to 1970-01-01: days so early mean that time_unit" in message


def refused_times(folder: Path, cells: list[str]) -> str:
    """The refusal of a log with these times."""
    write_log(folder, [])
    lines = [f"0,i0,{cell},1,1" for cell in cells]
    (folder / "log.csv").write_text(
        "\n".join(["user_id,item_id,timestamp,label,seconds", *lines]) + "\n"
    )
    return refusal(make_run(folder))


@pytest.mark.data
def test_globo_counts_are_the_published_ones(tmp_path: Path, data_root: Path) -> None:
    run = create_run(
        read_config(REPO / "configs" / "globo.yaml", data_root / "globo" / "clicks"), tmp_path, "r"
    )
    rows = [execute(run, step) for step in STEPS][-1].rows
    assert rows == {
        "read": 2_073_175,
        "train": 1_294_842,
        "test": 130_173,
        "outside": 648_160,
        "quarantined": 0,
    }
    test = pd.read_parquet(
        run.step("split_by_time") / "test.parquet", columns=["user_id", "item_id"]
    )
    assert len(test.drop_duplicates()) == 129_358


AVAILABLE = "item_id,available_from,available_until\n"


def items_run(folder: Path, rows: str) -> Run:
    write_log(folder, [], items=AVAILABLE + rows)
    run = make_run(folder)
    raw = run.config.model_dump()
    raw["data"]["source"]["items"] |= {"time_unit": "iso", "timezone": "Europe/Berlin"}
    return create_run(parse_config(raw), folder / "runs", "times")


def test_times_of_items_are_read_like_those_of_events(tmp_path: Path) -> None:
    rows = "i0,2024-03-01,2024-03-02T12:00:00Z\ni1,,2024-03-02\ni2,2024-03-03 01:00,\ni3,,\ni4,,\n"
    run = items_run(tmp_path, rows)
    execute(run, "ingest_data")
    info = execute(run, "validate_data").info
    items = pd.read_parquet(run.step("validate_data") / "items.parquet").set_index("item_id")
    assert list(items.columns) == ["available_from", "available_until"]
    since, until = items["available_from"].dropna(), items["available_until"].dropna()
    assert since.to_dict() == {"i0": T0 - HOUR, "i2": T0 + 48 * HOUR}
    assert until.to_dict() == {"i0": T0 + 36 * HOUR, "i1": T0 + 23 * HOUR}
    assert info["broken_rules"] == info["drift"] == []


def test_a_time_of_an_item_that_cannot_be_read_refuses_the_log(tmp_path: Path) -> None:
    run = items_run(tmp_path, "i0,soon,\ni1,,2024-13-01\ni2,,\ni3,,\ni4,,\n")
    message = refusal(run)
    assert "items: available_from must be a time, but this fails for 1 of 5 rows" in message
    assert "items: available_until must be a time, but this fails for 1 of 5 rows" in message
    assert "'soon'" in message
    assert "'2024-13-01'" in message


def test_an_item_that_ends_before_it_begins_is_a_warning(tmp_path: Path) -> None:
    rows = "i0,2024-03-02,2024-03-01\ni1,2024-03-02,2024-03-02\ni2,2024-03-02,2024-03-03\n"
    run = items_run(tmp_path, rows + "i3,2024-03-02,\ni4,,2024-03-02\n")
    execute(run, "ingest_data")
    manifest = execute(run, "validate_data")
    (sentence,) = manifest.info["drift"]
    assert sentence == (
        "items: available_until must be after available_from, but this fails for 2 of 5 rows (for"
        " example 'i0', 'i1'); these items are never listed: fix the times"
    )
    assert manifest.info["broken_rules"] == []
    assert len(pd.read_parquet(run.step("validate_data") / "items.parquet")) == 5


def test_only_items_have_times_of_availability(tmp_path: Path) -> None:
    """In another table a column of this name is a column as any other."""
    write_log(tmp_path, [], users="user_id,available_until\n0,always\n1,never\n")
    run = make_run(tmp_path)
    execute(run, "ingest_data")
    execute(run, "validate_data")
    users = pd.read_parquet(run.step("validate_data") / "users.parquet")
    assert users["available_until"].tolist() == ["always", "never"]
