"""Split by time: train on whole days before the cutoff, test on the day(s) after it, and account for every row."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import pyarrow.parquet as pq
from duckdb import DuckDBPyConnection

from dssm_core.artifacts import Run
from dssm_core.config import Config
from dssm_core.errors import DataError
from dssm_core.ingest import ROW, connect, numbered, one_row, write_parquet
from dssm_core.positive import parse_positive
from dssm_core.schema import CREATED, ITEM, LABEL, REASON, TIME, USER
from dssm_core.sources.columns import quote, text
from dssm_core.steps import Outcome


@dataclass(frozen=True)
class Window:
    """Times in ms UTC: train is [start, cutoff), test is [cutoff, end)."""

    start_ms: int
    cutoff_ms: int
    end_ms: int


def day_start_ms(day: date, zone: ZoneInfo) -> int:
    """The first instant of a local day, ms UTC: where DST skips midnight, the instant at which the day begins."""
    midnight = datetime(day.year, day.month, day.day, tzinfo=zone)
    return int(midnight.astimezone(UTC).timestamp()) * 1000


def days_of(config: Config) -> list[date]:
    """The window's local days, train then test."""
    split = config.split
    return [split.test_day + timedelta(days=offset) for offset in range(-split.train_days, split.test_days)]


def day_edges_ms(config: Config) -> list[int]:
    """Where each day of the window starts, then where the last one ends, ms UTC."""
    days = days_of(config)
    return [day_start_ms(day, config.data.zone) for day in (*days, days[-1] + timedelta(days=1))]


def window_of(config: Config) -> Window:
    """The window of a config: local midnights, so a day may have 23 or 25 hours."""
    edges = day_edges_ms(config)
    return Window(edges[0], edges[config.split.train_days], edges[-1])


def split(run: Run, work: Path) -> Outcome:
    """Write train.parquet, test.parquet (user_id, item_id, timestamp, label, context columns) and quarantine.parquet.

    rows: read = train + test + outside + quarantined (validation's included). Quarantined here: exact duplicates
    (same user, item and time; the first stays) and clicks older than their article. Raises DataError when train or
    test is empty, naming the days that the log has, or when the rows do not add up.
    """
    window = window_of(run.config)
    with connect(work) as con:
        _judge(con, run.step("validate_data"), window)
        rows = _write(con, run.config, window, work)
        before = run.need("validate_data").rows["quarantined"]
        rows |= {"read": run.need("ingest_data").rows["read"], "quarantined": rows["quarantined"] + before}
        _check_sum(rows)
        _check_days(con, run.config, rows)
        info = {"start_ms": window.start_ms, "cutoff_ms": window.cutoff_ms, "end_ms": window.end_ms} | _cold(con, work)
    return Outcome(rows=rows, info=info | {"days": [day.isoformat() for day in days_of(run.config)], "timezone": run.config.data.timezone})


def _judge(con: DuckDBPyConnection, folder: Path, window: Window) -> None:
    """View `judged`: the validated rows with `_part` (train, test, outside, quarantined), `_reason` and `_row`."""
    con.execute(f"CREATE VIEW log AS {numbered(folder / 'interactions.parquet')}")
    inside = f"{TIME} >= {window.start_ms} AND {TIME} < {window.end_ms}"
    # the duplicates of the window only, by their row numbers: far smaller than a window function over every column
    nth = f"row_number() OVER (PARTITION BY {USER}, {ITEM}, {TIME} ORDER BY {ROW})"
    con.execute(f"CREATE TABLE repeats AS SELECT {ROW} FROM (SELECT {ROW}, {nth} AS nth FROM log WHERE {inside}) WHERE nth > 1")
    con.execute(
        "CREATE VIEW judged AS SELECT log.*, CASE"
        f" WHEN {TIME} IS NULL OR NOT ({inside}) THEN 'outside'"
        f" WHEN _reason IS NOT NULL THEN 'quarantined' WHEN {TIME} < {window.cutoff_ms} THEN 'train' ELSE 'test' END AS _part"
        f" FROM (SELECT log.*, CASE WHEN {ROW} IN (SELECT {ROW} FROM repeats) THEN 'the same user, item and time came before'"
        f" {_older(folder)} END AS _reason FROM log) AS log"
    )


def _older(folder: Path) -> str:
    """SQL: a WHEN for clicks older than their article, where the items say when they were created."""
    items = folder / "items.parquet"
    if not items.is_file() or CREATED not in pq.read_schema(items).names:
        return ""
    born = f"(SELECT {CREATED} FROM read_parquet({text(str(items))}) AS i WHERE i.{ITEM} = log.{ITEM})"
    return f"WHEN {TIME} < {born} THEN concat('clicked ', {born} - {TIME}, ' ms before its item was created')"


def _write(con: DuckDBPyConnection, config: Config, window: Window, work: Path) -> dict[str, int]:
    """Write the three files; rows of each part."""
    names = [name for name in con.table("judged").columns if name not in (ROW, "_part", "_reason")]
    label = parse_positive(config.data.positive).sql(names)
    context = "".join(f", {quote(name)}" for name in names if name not in (USER, ITEM, TIME, LABEL))
    columns = f"{USER}, {ITEM}, {TIME}, CAST({label} AS TINYINT) AS {LABEL}{context}"
    rows = {
        part: write_parquet(con, f"SELECT {columns} FROM judged WHERE _part = '{part}' ORDER BY {ROW}", work / f"{part}.parquet")
        for part in ("train", "test")
    }
    everything = ", ".join(quote(name) for name in names)
    rows["quarantined"] = write_parquet(
        con, f"SELECT {everything}, _reason AS {REASON} FROM judged WHERE _part = 'quarantined' ORDER BY {ROW}", work / "quarantine.parquet"
    )
    outside = f"{TIME} IS NULL OR {TIME} < {window.start_ms} OR {TIME} >= {window.end_ms}"
    (rows["outside"],) = one_row(con, f"SELECT count(*) FROM log WHERE {outside}")
    return rows


def _check_sum(rows: dict[str, int]) -> None:
    """Every row that was read must be somewhere."""
    parts = [rows[name] for name in ("train", "test", "outside", "quarantined")]
    if sum(parts) != rows["read"]:
        raise DataError(
            f"rows do not add up: {rows['read']} read, but train + test + outside + quarantined ="
            f" {' + '.join(map(str, parts))}: please report this with the run's manifests"
        )


def _check_days(con: DuckDBPyConnection, config: Config, rows: dict[str, int]) -> None:
    for part, day in (
        ("train", f"the {config.split.train_days} days before {config.split.test_day}"),
        ("test", str(config.split.test_day)),
    ):
        if not rows[part]:
            raise DataError(f"no row left for {part} ({day}, {config.data.timezone}): {log_days(con, config)}; set split.test_day")


def log_days(con: DuckDBPyConnection, config: Config) -> str:
    """The local days of view `log` in words, for errors."""
    low, high = one_row(con, f"SELECT min({TIME}), max({TIME}) FROM log")
    if low is None:
        return "the log has no row with a time"
    first, last = (datetime.fromtimestamp(time / 1000, config.data.zone).date() for time in (low, high))
    return f"the log has {first} to {last}"


def _cold(con: DuckDBPyConnection, work: Path) -> dict[str, float]:
    """Shares of the test positives whose user, or item, has no positive in train."""
    train, test = (
        f"(SELECT * FROM read_parquet({text(str(work / name))}) WHERE {LABEL} = 1)" for name in ("train.parquet", "test.parquet")
    )
    shares = ", ".join(f"avg(CAST({key} NOT IN (SELECT {key} FROM {train}) AS INT))" for key in (USER, ITEM))
    user, item = one_row(con, f"SELECT {shares} FROM {test}")
    return {"cold_user_share": round(user or 0.0, 6), "cold_item_share": round(item or 0.0, 6)}
