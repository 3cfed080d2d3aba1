"""The latest clicks: from the landed days, and from the log for later ones; cleaned by the rules of
a training.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pandas as pd
from duckdb import DuckDBPyConnection, DuckDBPyRelation

from dssm_core import families
from dssm_core.aliases import JSON
from dssm_core.columns import HISTORIES, INTERACTIONS, ITEM, ITEMS, ROW, TIME, USER, USERS
from dssm_core.config import Config, Member
from dssm_core.config.log_columns import number_columns
from dssm_core.data.database import UNREADABLE, connect, one_row, unreadable, write_table
from dssm_core.data.frames import valid_rows
from dssm_core.data.histories import write_histories
from dssm_core.data.ingest import (
    content_of,
    open_source,
    parse_numbers,
    read_ingested,
    read_source,
    write_sides,
)
from dssm_core.data.landing import find_day
from dssm_core.data.sources.canonical import KEYS, RAW, TIMES
from dssm_core.data.sources.protocol import Source, Span
from dssm_core.data.split import clean
from dssm_core.data.splits.days import day_start_ms
from dssm_core.data.splits.protocol import CLEAN, POSITIVE, Window
from dssm_core.data.sql import identifier, numbered_rows
from dssm_core.errors import DataError, shown
from dssm_core.families import SOURCES
from dssm_core.retrieval.latest_tables import LatestTables
from dssm_core.runs.layout import table_file
from dssm_core.runs.step_key import hash_of

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Origin:
    """A source, the times [start, end) in ms that are read from it, and the hashes of its files."""

    source: Source
    spans: list[tuple[int, int]]
    holds: JSON


def origins(config: Config, start_ms: int, end_ms: int, days: Path | None) -> list[Origin]:
    """The origins of the clicks of [start, end).

    days: the folder of landed days. A day that had ended by `end_ms` is read from there if it has
    landed in the config's time zone; all other days are read from the config's own source, so that
    a day which is not over is never taken for complete.
    """
    spans = _day_spans(config, start_ms, end_ms)
    ended = [day for day, (_, end) in spans.items() if end <= end_ms]
    keys = _landed_keys(config, days, ended) if days else {}
    result = []
    if days and keys:
        landed = [spans[day] for day in spans if day in keys]
        result.append(_landed_origin(days / config.name, keys, landed))
    if rest := [spans[day] for day in spans if day not in keys]:
        source = open_source(config)
        content = content_of(source, _span(rest, start_ms, end_ms))
        hashes = {name: hash_of(held) for name, held in content.items()}
        result.append(Origin(source, rest, {"files": hashes}))
    return result


def _span(spans: list[tuple[int, int]], start_ms: int, end_ms: int) -> Span:
    """From the first to the last time of some days that is in [start, end)."""
    return Span(max(start_ms, spans[0][0]), min(end_ms, spans[-1][1]))


def _day_spans(config: Config, start_ms: int, end_ms: int) -> dict[date, tuple[int, int]]:
    """When each local day that [start, end) touches begins and ends, in ms."""
    zone = config.data.zone
    return {
        day: (day_start_ms(day, zone), day_start_ms(day + timedelta(days=1), zone))
        for day in _local_days(config, start_ms, end_ms)
    }


def _landed_keys(config: Config, days: Path, wanted: Iterable[date]) -> dict[date, str]:
    """The keys of the wanted days that have landed in the config's time zone."""
    landed = {day: find_day(days, config.name, day) for day in wanted}
    return {
        day: found.key
        for day, found in landed.items()
        if found and found.timezone == config.data.timezone
    }


def _landed_origin(folder: Path, keys: dict[date, str], spans: list[tuple[int, int]]) -> Origin:
    """Landed days as an origin."""
    by_name = {day.isoformat(): key for day, key in keys.items()}
    choice = Member.model_validate({"kind": "landed", "path": str(folder), "days": by_name})
    return Origin(families.build(SOURCES, choice), spans, {"days": by_name})


def read_latest(
    config: Config, start_ms: int, end_ms: int, sources: list[Origin], work: Path
) -> tuple[LatestTables, dict[str, int]]:
    """The clean positives with start <= time < end, the users and the items; and the number of rows
    that were read, are sound (break no rule), clean (sound, no duplicate, not before their item is
    created) and positive.

    work: an empty folder. Raises DataError if there is no positive, or if a larger share of the
    rows than validation.max_quarantine_share breaks a rule.
    """
    try:
        with connect(work, config.resources) as con:
            _ingest(con, config, start_ms, end_ms, sources, work)
            frame, rows = _clean(con, config, Window(start_ms, end_ms, end_ms), work)
    except UNREADABLE as error:
        raise unreadable(error) from error
    _check(config, rows, start_ms, end_ms)
    return LatestTables(
        frame,
        _table(work / table_file(USERS), USERS),
        _table(work / table_file(ITEMS), ITEMS),
        _table(work / table_file(HISTORIES), USERS),
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
    sources: list[Origin],
    work: Path,
) -> None:
    """interactions.parquet in time order, users.parquet and items.parquet of the newest origin that
    has them, and histories.parquet if an origin has them.
    """
    numbers, parts = number_columns(config), []
    prior: list[str] = []
    newest: dict[str, DuckDBPyRelation] = {}
    for nth, origin in enumerate(sources):
        tables = read_source(con, origin.source, _span(origin.spans, start_ms, end_ms))
        inside = " OR ".join(
            f"({TIME} >= {max(start, start_ms)} AND {TIME} < {min(end, end_ms)})"
            for start, end in origin.spans
        )
        tables.interactions.filter(inside).create_view(f"part_{nth}")
        parts.append(f"SELECT * FROM part_{nth}")
        if tables.histories is not None:
            tables.histories.filter(inside).create_view(f"prior_{nth}")
            prior.append(f"SELECT * FROM prior_{nth}")
        for name, table in ((USERS, tables.users), (ITEMS, tables.items)):
            if table is not None:
                newest[name] = table
    log = work / table_file(INTERACTIONS)
    clicks = con.sql(" UNION ALL BY NAME ".join(parts))
    write_table(con, parse_numbers(clicks, numbers), log, TIME)
    write_sides(con, config, newest, log)
    if prior:
        file = work / table_file(HISTORIES)
        write_histories(con, con.sql(" UNION ALL ".join(prior)), file, "true")


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
        f" WHERE {ROW} IN (SELECT {ROW} FROM sound)"
    )
    clean(con, config, work, window)
    context = [
        feature.column for feature in config.features.columns.context if feature.column in columns
    ]
    selected = ", ".join(identifier(name) for name in (USER, ITEM, TIME, *context))
    frame = (
        con.sql(f"SELECT {selected} FROM cleaned WHERE {CLEAN} AND {POSITIVE} = 1 ORDER BY {ROW}")
        .to_arrow_table()
        .to_pandas()
    )
    (read,) = one_row(con, f"SELECT count(*) FROM ({rows})")
    (sound,) = one_row(con, "SELECT count(*) FROM sound")
    (cleaned,) = one_row(con, f"SELECT count(*) FROM cleaned WHERE {CLEAN}")
    return frame, {"read": read, "sound": sound, "clean": cleaned, "positive": len(frame)}


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


def _table(file: Path, name: str) -> pd.DataFrame | None:
    if not file.is_file():
        return None
    table = pd.read_parquet(file)
    (key,) = KEYS[name]
    if twice := int(table[key].duplicated().sum()):
        raise DataError(
            f"{twice} rows of {file.stem} have a {key} that came before: keep one row for each id"
        )
    _check_times(table, name)
    return table


def _check_times(table: pd.DataFrame, name: str) -> None:
    """DataError if a time cannot be read: an item whose end is unknown would be listed for ever."""
    for raw in (RAW + column for column in TIMES[name]):
        texts = table[raw].dropna().tolist() if raw in table else []
        if texts:
            raise DataError(
                f"{len(texts)} rows of {name} have text in {raw.removeprefix(RAW)} that is no time"
                f" (for example {shown(texts[0])}): fix them; the index is not changed"
            )
