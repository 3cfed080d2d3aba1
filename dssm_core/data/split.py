"""The step `split_by_time`: part the log into train and test as the config's protocol says, and
account for every row.
"""

from __future__ import annotations

from dataclasses import asdict
from datetime import datetime
from pathlib import Path

import pyarrow.parquet as pq
from duckdb import DuckDBPyConnection

from dssm_core.columns import CREATED, ITEM, LABEL, PART, REASON, ROW, TIME, USER
from dssm_core.config import Config
from dssm_core.data.comparison import parse_comparison
from dssm_core.data.database import connect, one_row, write_parquet
from dssm_core.data.splits.days import Days
from dssm_core.data.splits.fixed import Fixed
from dssm_core.data.splits.protocol import CLEAN, POSITIVE, Window
from dssm_core.data.sql import identifier, literal, numbered_rows
from dssm_core.errors import DataError
from dssm_core.runs.layout import QUARANTINE_FILE, TEST_FILE, TRAIN_FILE, table_file
from dssm_core.runs.manifest import Outcome
from dssm_core.runs.run import Run


def window_of(config: Config) -> Window | None:
    """The times that a config looks at; None where its split looks at all rows."""
    return config.split.window(config.data.zone)


def split(run: Run, work: Path) -> Outcome:
    """Write train.parquet, test.parquet (user_id, item_id, timestamp, label, context columns) and
    quarantine.parquet.

    rows: read = train + test + outside + quarantined (validation's included). Quarantined here:
    exact duplicates (same user, item and time; the first stays) and clicks older than their
    article. Raises DataError when train or test is empty, naming the days that the log has, when
    train has fewer items than `evaluation.ks` asks for, or when the rows do not add up.
    """
    config, window = run.config, window_of(run.config)
    with connect(work) as con:
        _judge(con, config, run.step("validate_data"), window)
        rows = _write(con, config, work)
        before = run.need("validate_data").rows["quarantined"]
        rows |= {
            "read": run.need("ingest_data").rows["read"],
            "quarantined": rows["quarantined"] + before,
        }
        _check_sum(rows)
        _check_parts(con, config, rows)
        _check_catalogue(con, config, work)
        info = asdict(window or _span(con, work)) | _cold(con, work)
    days = [day.isoformat() for day in config.split.days] if isinstance(config.split, Days) else []
    return Outcome(rows=rows, info=info | {"days": days, "timezone": config.data.timezone})


def _judge(con: DuckDBPyConnection, config: Config, folder: Path, window: Window | None) -> None:
    """View `judged`: the validated rows with `_part` (train, test, outside, quarantined),
    `_reason`, `_positive`, `_row`.
    """
    con.execute(f"CREATE VIEW log AS {numbered_rows(folder / 'interactions.parquet')}")
    if isinstance(config.split, Fixed) and PART not in con.table("log").columns:
        raise DataError(
            f"split.kind is 'fixed' but interactions have no column {PART!r}: map one to it, or take another split.kind"
        )
    clean(con, config, folder, window)
    part, source = config.split.part(window), "cleaned"
    if (
        window is None
    ):  # it may count over a user's rows: once, and with no more columns than it needs
        con.execute(f"CREATE TABLE parts AS SELECT {ROW}, {part} AS _own FROM cleaned")
        part, source = "_own", f"cleaned JOIN parts USING ({ROW})"
    sort = f"WHEN _outside THEN 'outside' WHEN NOT {CLEAN} THEN 'quarantined'"
    con.execute(
        f"CREATE VIEW judged AS SELECT *, CASE {sort} ELSE {part} END AS _part FROM {source}"
    )


def clean(con: DuckDBPyConnection, config: Config, folder: Path, window: Window | None) -> None:
    """View `cleaned`: the log with `_positive`, `_outside`, `_clean`, and `_reason` where a row is
    to be quarantined.
    """
    inside = (
        f"{TIME} >= {window.start_ms} AND {TIME} < {window.end_ms}"
        if window
        else f"{TIME} IS NOT NULL"
    )
    # the duplicates of the window only, by their row numbers: far smaller than a window function
    # over every column
    nth = f"row_number() OVER (PARTITION BY {USER}, {ITEM}, {TIME} ORDER BY {ROW})"
    con.execute(
        f"CREATE TABLE repeats AS SELECT {ROW} FROM (SELECT {ROW}, {nth} AS nth FROM log WHERE {inside}) WHERE nth > 1"
    )
    repeated = f"{ROW} IN (SELECT {ROW} FROM repeats)"
    positive = f"CAST({parse_comparison(config.data.positive).sql(con.table('log').columns)} AS TINYINT) AS {POSITIVE}"
    reason = f"CASE WHEN {repeated} THEN 'the same user, item and time came before' {_older(folder)} END AS _reason"
    con.execute(
        f"CREATE VIEW cleaned AS SELECT *, NOT _outside AND _reason IS NULL AS {CLEAN}"
        f" FROM (SELECT log.*, {positive}, {TIME} IS NULL OR NOT ({inside}) AS _outside, {reason} FROM log)"
    )


def _older(folder: Path) -> str:
    """SQL: a WHEN for clicks older than their article, where the items say when they were created."""
    items = folder / table_file("items")
    if not items.is_file() or CREATED not in pq.read_schema(items).names:
        return ""
    born = f"(SELECT {CREATED} FROM read_parquet({literal(str(items))}) AS i WHERE i.{ITEM} = log.{ITEM})"
    return f"WHEN {TIME} < {born} THEN concat('clicked ', {born} - {TIME}, ' ms before its item was created')"


def _write(con: DuckDBPyConnection, config: Config, work: Path) -> dict[str, int]:
    """Write the three files; rows of each part."""
    names = list(con.table("log").columns)
    names.remove(ROW)
    context = "".join(
        f", {identifier(name)}" for name in names if name not in (USER, ITEM, TIME, LABEL)
    )
    columns = f"{USER}, {ITEM}, {TIME}, {POSITIVE} AS {LABEL}{context}"
    rows = {
        part: write_parquet(
            con,
            f"SELECT {columns} FROM judged WHERE _part = '{part}' ORDER BY {ROW}",
            work / table_file(part),
        )
        for part in ("train", "test")
    }
    everything = ", ".join(identifier(name) for name in names)
    rows["quarantined"] = write_parquet(
        con,
        f"SELECT {everything}, _reason AS {REASON} FROM judged WHERE _part = 'quarantined' ORDER BY {ROW}",
        work / QUARANTINE_FILE,
    )
    (rows["outside"],) = one_row(con, "SELECT count(*) FROM judged WHERE _part = 'outside'")
    return rows


def _check_sum(rows: dict[str, int]) -> None:
    """Every row that was read must be somewhere."""
    parts = [rows[name] for name in ("train", "test", "outside", "quarantined")]
    if sum(parts) != rows["read"]:
        raise DataError(
            f"rows do not add up: {rows['read']} read, but train + test + outside + quarantined ="
            f" {' + '.join(map(str, parts))}: please report this with the run's manifests"
        )


def _check_parts(con: DuckDBPyConnection, config: Config, rows: dict[str, int]) -> None:
    for part in ("train", "test"):
        if not rows[part]:
            raise DataError(
                f"no row left for {part} ({config.split.advice(part)}); {log_days(con, config)}"
            )


def _check_catalogue(con: DuckDBPyConnection, config: Config, work: Path) -> None:
    """Lists cannot be longer than the catalogue: what train's positives hold."""
    train, longest = literal(str(work / TRAIN_FILE)), max(config.evaluation.ks)
    (items,) = one_row(
        con, f"SELECT count(DISTINCT {ITEM}) FROM read_parquet({train}) WHERE {LABEL} = 1"
    )
    if items < longest:
        raise DataError(
            f"evaluation.ks asks for {longest} items but train's positives know {items}: give more train rows, or lower"
            f" evaluation.ks and gate.k, such as --set 'evaluation.ks=[{max(1, items // 10)}]' --set gate.k={max(1, items // 10)}"
        )


def _span(con: DuckDBPyConnection, work: Path) -> Window:
    """The times of a split that no moment parts: everything of train counts as known at its end."""
    train, test = (literal(str(work / table_file(part))) for part in ("train", "test"))
    start, cutoff = one_row(con, f"SELECT min({TIME}), max({TIME}) + 1 FROM read_parquet({train})")
    (end,) = one_row(con, f"SELECT max({TIME}) + 1 FROM read_parquet({test})")
    return Window(start, cutoff, max(cutoff, end))


def log_days(con: DuckDBPyConnection, config: Config) -> str:
    """The local days of view `log` in words, for errors."""
    low, high = one_row(con, f"SELECT min({TIME}), max({TIME}) FROM log")
    if low is None:
        return "the log has no row with a time"
    first, last = (
        datetime.fromtimestamp(time / 1000, config.data.zone).date() for time in (low, high)
    )
    return f"the log has {first} to {last}"


def _cold(con: DuckDBPyConnection, work: Path) -> dict[str, float]:
    """Shares of the test positives whose user, or item, has no positive in train."""
    train, test = (
        f"(SELECT * FROM read_parquet({literal(str(work / name))}) WHERE {LABEL} = 1)"
        for name in (TRAIN_FILE, TEST_FILE)
    )
    shares = ", ".join(
        f"avg(CAST({key} NOT IN (SELECT {key} FROM {train}) AS INT))" for key in (USER, ITEM)
    )
    user, item = one_row(con, f"SELECT {shares} FROM {test}")
    return {"cold_user_share": round(user or 0.0, 6), "cold_item_share": round(item or 0.0, 6)}
