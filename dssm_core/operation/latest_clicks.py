"""The latest clicks: of days that have landed, and of the log itself for what came since; cleaned
by the rules of a training.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pandas as pd
from duckdb import DuckDBPyConnection

from dssm_core import families
from dssm_core.aliases import JSON
from dssm_core.columns import INTERACTIONS, ITEM, ITEMS, TIME, USER, USERS
from dssm_core.config import Config, Member
from dssm_core.data.database import UNREADABLE, connect, one_row, unreadable, write_table
from dssm_core.data.frames import valid_rows
from dssm_core.data.ingest import number_columns, open_source, parse_numbers, read_ingested
from dssm_core.data.landing import find_day
from dssm_core.data.sources.protocol import Source
from dssm_core.data.split import clean
from dssm_core.data.splits.days import day_start_ms
from dssm_core.data.splits.protocol import CLEAN, POSITIVE, Window
from dssm_core.data.sql import identifier, numbered_rows
from dssm_core.errors import DataError
from dssm_core.families import SOURCES
from dssm_core.retrieval.snapshots import LatestTables
from dssm_core.runs.files import sha256
from dssm_core.runs.layout import table_file

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Origin:
    """A source, the times [start, end) ms of it that are read, and what it holds, with hashes."""

    source: Source
    spans: list[tuple[int, int]]
    holds: JSON


def origins(config: Config, start_ms: int, end_ms: int, days: Path | None) -> list[Origin]:
    """Where the clicks of [start, end) are.

    days: the folder of landed days. Those that had ended by `end_ms`, and are days of the same time
    zone, are taken from there; what they do not hold from the config's own source, so that a day
    that is still going on is never taken for complete.
    """
    zone = config.data.zone
    edges = {
        day: (day_start_ms(day, zone), day_start_ms(day + timedelta(days=1), zone))
        for day in _local_days(config, start_ms, end_ms)
    }
    there = {
        day: find_day(days, config.name, day)
        for day, (_, end) in edges.items()
        if days and end <= end_ms
    }
    keys = {
        day: found.key
        for day, found in there.items()
        if found and found.timezone == config.data.timezone
    }
    rest = [edges[day] for day in edges if day not in keys]
    found = []
    if days and keys:
        told = {day.isoformat(): key for day, key in keys.items()}
        kept = Member.model_validate(
            {"kind": "landed", "path": str(days / config.name), "days": told}
        )
        found.append(
            Origin(families.build(SOURCES, kept), [edges[day] for day in keys], {"days": told})
        )
    if rest:
        source = open_source(config)
        found.append(
            Origin(
                source,
                rest,
                {"files": {name: sha256(file) for name, file in source.files().items()}},
            )
        )
    return found


def read_latest(
    config: Config, start_ms: int, end_ms: int, found: list[Origin], work: Path
) -> tuple[LatestTables, dict[str, int]]:
    """The clean positives with start <= time < end, the users and items; rows read, sound (they
    break no rule), clean (nor come twice, nor before their item) and positive.

    work: an empty folder. DataError where there is no positive at all, or more rows break a rule
    than validation.max_quarantine_share.
    """
    try:
        with connect(work) as con:
            _ingest(con, config, start_ms, end_ms, found, work)
            frame, rows = _clean(con, config, Window(start_ms, end_ms, end_ms), work)
    except UNREADABLE as error:
        raise unreadable(error) from error
    _check(config, rows, start_ms, end_ms)
    return LatestTables(
        frame,
        *(_table(work / table_file(name), key) for name, key in ((USERS, USER), (ITEMS, ITEM))),
    ), rows


def _local_days(config: Config, start_ms: int, end_ms: int) -> list[date]:
    """The local days that [start, end) touches."""
    first, last = (
        datetime.fromtimestamp(time / 1000, config.data.zone).date()
        for time in (start_ms, end_ms - 1)
    )
    return [first + timedelta(days=nth) for nth in range((last - first).days + 1)]


def _ingest(
    con: DuckDBPyConnection,
    config: Config,
    start_ms: int,
    end_ms: int,
    found: list[Origin],
    work: Path,
) -> None:
    """interactions.parquet in time order, users.parquet and items.parquet of the newest origin that
    has them.
    """
    numbers, parts = number_columns(config), []
    for nth, origin in enumerate(found):
        tables = origin.source.read(con)
        inside = " OR ".join(
            f"({TIME} >= {max(start, start_ms)} AND {TIME} < {min(end, end_ms)})"
            for start, end in origin.spans
        )
        tables.interactions.filter(inside).create_view(f"part_{nth}")
        parts.append(f"SELECT * FROM part_{nth}")
        for name, table in ((USERS, tables.users), (ITEMS, tables.items)):
            if table is not None:
                write_table(con, parse_numbers(table, numbers), work / table_file(name))
    write_table(
        con,
        parse_numbers(con.sql(" UNION ALL BY NAME ".join(parts)), numbers),
        work / table_file(INTERACTIONS),
        TIME,
    )


def _clean(
    con: DuckDBPyConnection, config: Config, window: Window, work: Path
) -> tuple[pd.DataFrame, dict[str, int]]:
    """The positives that `validate_data` and `split_by_time` would keep, in time order."""
    rows = numbered_rows(work / table_file(INTERACTIONS))
    con.execute(f"CREATE VIEW log AS {rows}")
    columns = list(con.table("log").columns)
    con.execute(f"CREATE TABLE sound AS {valid_rows(config, read_ingested(work))}")
    con.execute(
        f"CREATE OR REPLACE VIEW log AS SELECT * FROM ({rows})"
        " WHERE _row IN (SELECT _row FROM sound)"
    )
    clean(con, config, work, window)
    context = [
        feature.column for feature in config.features.columns.context if feature.column in columns
    ]
    wanted = ", ".join(identifier(name) for name in (USER, ITEM, TIME, *context))
    frame = (
        con.sql(f"SELECT {wanted} FROM cleaned WHERE {CLEAN} AND {POSITIVE} = 1 ORDER BY _row")
        .to_arrow_table()
        .to_pandas()
    )
    (read,) = one_row(con, f"SELECT count(*) FROM ({rows})")
    (sound,), (kept,) = (
        one_row(con, "SELECT count(*) FROM sound"),
        one_row(con, f"SELECT count(*) FROM cleaned WHERE {CLEAN}"),
    )
    return frame, {"read": read, "sound": sound, "clean": kept, "positive": len(frame)}


def _check(config: Config, rows: dict[str, int], start_ms: int, end_ms: int) -> None:
    first, last = (
        datetime.fromtimestamp(time / 1000, UTC).isoformat(timespec="minutes")
        for time in (start_ms, end_ms)
    )
    if not rows["positive"]:
        raise DataError(
            f"the log of {config.name!r} has no click from {first} to {last}:"
            " check --data, --days and the time of the refresh"
        )
    share, most = 1 - rows["sound"] / rows["read"], config.validation.max_quarantine_share
    if share > most:
        raise DataError(
            f"{share:.2%} of the clicks of {config.name!r} from {first} to {last} break a rule,"
            f" more than validation.max_quarantine_share {most:.2%}: run validate_data for the"
            " reasons; the index is not changed"
        )


def _table(file: Path, key: str) -> pd.DataFrame | None:
    if not file.is_file():
        return None
    table = pd.read_parquet(file)
    if twice := int(table[key].duplicated().sum()):
        raise DataError(
            f"{twice} rows of {file.stem} have a {key} that came before: keep one row for each id"
        )
    return table
