"""The step `split_by_time`: divide the log into train and test as the config's split says, and
account for every row.
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import pyarrow.parquet as pq
from duckdb import DuckDBPyConnection

from dssm_core.columns import (
    CREATED,
    INTERACTIONS,
    INTERNAL,
    ITEM,
    ITEMS,
    LABEL,
    PART,
    ROW,
    TIME,
    USER,
)
from dssm_core.config import Config
from dssm_core.config.row_conditions import read_row_condition
from dssm_core.data.database import connect, one_row, write_parquet
from dssm_core.data.log_days import log_days
from dssm_core.data.row_conditions import label_sql, rows_sql
from dssm_core.data.splits.days import Days
from dssm_core.data.splits.fixed import Fixed
from dssm_core.data.splits.protocol import CLEAN, POSITIVE, Window
from dssm_core.data.sql import identifier, literal, numbered_rows, parquet, with_reason
from dssm_core.errors import DataError
from dssm_core.runs.layout import QUARANTINE_FILE, TEST_FILE, TRAIN_FILE, table_file
from dssm_core.runs.manifest import Outcome
from dssm_core.runs.run import Run

# Columns of the views `cleaned` and `judged`
OUTSIDE = f"{INTERNAL}outside"  # whether a row is outside the window
WHY = f"{INTERNAL}why"  # why a row is quarantined, else NULL
OWN_PART = f"{INTERNAL}own_part"  # the part that the split gives a clean row
ASSIGNED = f"{INTERNAL}part"  # train, test, outside or quarantined
DUPLICATE = "an earlier row has the same user, item and time"


def window_of(config: Config) -> Window | None:
    """The times of the config's split; None if the split uses all rows."""
    return config.split.window(config.data.zone)


def split(run: Run, work: Path) -> Outcome:
    """Write train.parquet, test.parquet (user_id, item_id, timestamp, label, context columns) and
    quarantine.parquet. The label is 1 for positives, 0 for negatives and NULL for rows that are
    neither.

    This step quarantines exact duplicates (same user, item and time; the first row stays) and
    interactions before the creation of their item.
    Returns rows: read = train + test + outside + quarantined, the rows that validate_data
    quarantined included. Raises DataError when train or test is empty (with the days of the log),
    when train has fewer items than `evaluation.ks` needs, or when the rows do not add up.
    """
    config = run.config
    window = window_of(config)
    with connect(work, config.resources) as con:
        _assign_parts(con, config, run.step("validate_data"), window)
        rows = _write(con, config, work)
        rows |= {
            "read": run.need("ingest_data").rows["read"],
            "quarantined": rows["quarantined"] + run.need("validate_data").rows["quarantined"],
        }
        _check_sum(rows)
        _check_parts(con, config, rows)
        _check_catalogue(con, config, work)
        info = asdict(window or _span(con, work)) | _cold_shares(con, work)
    days = [day.isoformat() for day in config.split.days] if isinstance(config.split, Days) else []
    return Outcome(rows=rows, info=info | {"days": days, "timezone": config.data.timezone})


def _assign_parts(
    con: DuckDBPyConnection, config: Config, folder: Path, window: Window | None
) -> None:
    """Create view `judged`: view `cleaned` with ASSIGNED."""
    con.execute(f"CREATE VIEW log AS {numbered_rows(folder / table_file(INTERACTIONS))}")
    if isinstance(config.split, Fixed) and PART not in con.table("log").columns:
        raise DataError(
            f"split.kind is 'fixed', but interactions have no column {PART!r}: map a column of the"
            f" log to {PART!r}, or choose another split.kind"
        )
    clean(con, config, folder, window)
    part = config.split.part(window)
    source = "cleaned"
    if window is None:
        # The expression may count the rows of a user: evaluate it once, with few columns.
        con.execute(f"CREATE TABLE parts AS SELECT {ROW}, {part} AS {OWN_PART} FROM cleaned")
        part = OWN_PART
        source = f"cleaned JOIN parts USING ({ROW})"
    cases = f"WHEN {OUTSIDE} THEN 'outside' WHEN NOT {CLEAN} THEN 'quarantined' ELSE {part}"
    con.execute(f"CREATE VIEW judged AS SELECT *, CASE {cases} END AS {ASSIGNED} FROM {source}")


def clean(con: DuckDBPyConnection, config: Config, folder: Path, window: Window | None) -> None:
    """Create view `cleaned`: view `log` with POSITIVE, OUTSIDE, CLEAN, and WHY for rows to
    quarantine.
    """
    inside = f"{TIME} IS NOT NULL"
    if window:
        inside = f"{TIME} >= {window.start_ms} AND {TIME} < {window.end_ms}"
    # Only row numbers of duplicates in the window are kept: that is far smaller than a window
    # function over every column.
    nth = f"row_number() OVER (PARTITION BY {USER}, {ITEM}, {TIME} ORDER BY {ROW})"
    repeats = f"SELECT {ROW} FROM log WHERE {inside} QUALIFY {nth} > 1"
    con.execute(f"CREATE TABLE repeats AS {repeats}")
    is_repeat = f"{ROW} IN (SELECT {ROW} FROM repeats)"
    positive = rows_sql(read_row_condition(config.data.positive), con.table("log").columns)
    reason = f"CASE WHEN {is_repeat} THEN {literal(DUPLICATE)} {_before_creation(folder)} END"
    con.execute(f"""
    CREATE VIEW cleaned AS SELECT *, NOT {OUTSIDE} AND {WHY} IS NULL AS {CLEAN} FROM (
        SELECT log.*, CAST({positive} AS TINYINT) AS {POSITIVE},
            {TIME} IS NULL OR NOT ({inside}) AS {OUTSIDE}, {reason} AS {WHY}
        FROM log
    )
    """)


def _before_creation(folder: Path) -> str:
    """SQL: a WHEN clause for interactions before the creation of their item; empty if the items
    have no creation times.
    """
    items = folder / table_file(ITEMS)
    if not items.is_file() or CREATED not in pq.read_schema(items).names:
        return ""
    created = f"(SELECT i.{CREATED} FROM {parquet(items)} AS i WHERE i.{ITEM} = log.{ITEM})"
    text = f"concat('clicked ', {created} - log.{TIME}, ' ms before its item was created')"
    return f"WHEN log.{TIME} < {created} THEN {text}"


def _write(con: DuckDBPyConnection, config: Config, work: Path) -> dict[str, int]:
    """Write the three files. Returns the rows of each part; with data.negative also `neither`, the
    rows of train and test that are neither positives nor negatives.
    """
    names = list(con.table("log").columns)
    names.remove(ROW)
    context = [identifier(name) for name in names if name not in (USER, ITEM, TIME, LABEL)]
    label = f"CAST({label_sql(config.data, con.table('log').columns)} AS TINYINT) AS {LABEL}"
    columns = ", ".join([USER, ITEM, TIME, label, *context])
    outputs = {
        "train": (columns, TRAIN_FILE),
        "test": (columns, TEST_FILE),
        "quarantined": (with_reason(names, WHY), QUARANTINE_FILE),
    }
    rows = {}
    for part, (selected, file) in outputs.items():
        query = f"SELECT {selected} FROM judged AS log WHERE {ASSIGNED} = '{part}' ORDER BY {ROW}"
        rows[part] = write_parquet(con, query, work / file)
    (rows["outside"],) = one_row(con, f"SELECT count(*) FROM judged WHERE {ASSIGNED} = 'outside'")
    if config.data.negative:
        written = parquet(work / TRAIN_FILE, work / TEST_FILE)
        (rows["neither"],) = one_row(con, f"SELECT count(*) FROM {written} WHERE {LABEL} IS NULL")
    return rows


def _check_sum(rows: dict[str, int]) -> None:
    """DataError if a row that was read is in no part."""
    parts = [rows[name] for name in ("train", "test", "outside", "quarantined")]
    if sum(parts) != rows["read"]:
        raise DataError(
            f"rows do not add up: {rows['read']} read, but train + test + outside + quarantined ="
            f" {' + '.join(map(str, parts))}. This is a bug: please report it with the manifests"
            " of the run"
        )


def _check_parts(con: DuckDBPyConnection, config: Config, rows: dict[str, int]) -> None:
    """DataError if train or test has no row."""
    for part in ("train", "test"):
        if not rows[part]:
            raise DataError(
                f"no row is left for {part}: {config.split.advice(part)}; {log_days(con, config)}"
            )


def _check_catalogue(con: DuckDBPyConnection, config: Config, work: Path) -> None:
    """DataError if the longest list of the evaluation is longer than the catalogue, which is the
    items of train's positives.
    """
    train = parquet(work / TRAIN_FILE)
    longest = max(config.evaluation.ks)
    (items,) = one_row(con, f"SELECT count(DISTINCT {ITEM}) FROM {train} WHERE {LABEL} = 1")
    if not items:
        raise DataError(
            f"no row of train is a positive: check data.positive, which is `{config.data.positive}`"
        )
    if items < longest:
        smaller = max(1, items // 10)
        raise DataError(
            f"evaluation.ks needs lists of {longest} items, but the positives of train have only"
            f" {items} items: use more training data, or lower evaluation.ks and gate.k, for"
            f" example --set 'evaluation.ks=[{smaller}]' --set gate.k={smaller}"
        )


def _span(con: DuckDBPyConnection, work: Path) -> Window:
    """The times of a split without a cutoff: all of train counts as known at the end of train."""
    train = parquet(work / TRAIN_FILE)
    test = parquet(work / TEST_FILE)
    start, cutoff = one_row(con, f"SELECT min({TIME}), max({TIME}) + 1 FROM {train}")
    (end,) = one_row(con, f"SELECT max({TIME}) + 1 FROM {test}")
    return Window(start, cutoff, max(cutoff, end))


def _cold_shares(con: DuckDBPyConnection, work: Path) -> dict[str, float]:
    """Shares of the test positives whose user, or whose item, has no positive in train."""
    train, test = (
        f"(SELECT * FROM {parquet(work / name)} WHERE {LABEL} = 1)"
        for name in (TRAIN_FILE, TEST_FILE)
    )
    shares = ", ".join(
        f"avg(CAST({key} NOT IN (SELECT {key} FROM {train}) AS INT))" for key in (USER, ITEM)
    )
    user, item = one_row(con, f"SELECT {shares} FROM {test}")
    return {"cold_user_share": round(user or 0.0, 6), "cold_item_share": round(item or 0.0, 6)}
