"""The days of a log as a sentence, for errors. Where they cannot be right, it names the `time_unit`
that would make them right.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from functools import partial

from duckdb import DuckDBPyConnection

from dssm_core.columns import DAY_MS, INTERACTIONS, TIME
from dssm_core.config import Config
from dssm_core.data.database import one_row
from dssm_core.data.sources.canonical import RAW, time_ms
from dssm_core.data.sources.mapped import MappedTable
from dssm_core.data.splits.days import Days
from dssm_core.data.sql import identifier

EARLIEST_MS = 10 * 365 * DAY_MS  # 1980: a log of days does not end before it
PLAUSIBLE = tuple(int(datetime(year, 1, 1, tzinfo=UTC).timestamp() * 1000) for year in (1990, 2100))
MOST = 0.9  # share of the times that a better unit makes plausible
MS = {"s": 1000.0, "ms": 1.0, "us": 1e-3, "ns": 1e-6}  # ms in each unit


def log_days(con: DuckDBPyConnection, config: Config) -> str:
    """The first and last local day of view `log` as a sentence, for errors."""
    first, last = one_row(con, f"SELECT min({TIME}), max({TIME}) FROM log")
    day = partial(_local_day, config=config)
    better = _better_unit(con, config)
    hint = ""
    if better:
        unit, start, end = better
        hint = f"; with time_unit {unit} it would have {day(start)} to {day(end)}"
    if first is None:
        return f"the log has no row with a time{hint}"
    days = f"the log has {day(first)} to {day(last)}{hint}"
    if not better and isinstance(config.split, Days) and last < EARLIEST_MS:
        days += ": days so early mean that time_unit of the timestamp is wrong"
    return days


def _local_day(time_ms: int, config: Config) -> str:
    try:
        return datetime.fromtimestamp(time_ms / 1000, config.data.zone).date().isoformat()
    except (ValueError, OverflowError, OSError):
        return f"an end of the calendar (timestamp {time_ms} ms: check time_unit)"


def _better_unit(con: DuckDBPyConnection, config: Config) -> tuple[str, int, int] | None:
    """The time_unit by which most times of view `log` are in the years 1990 to 2099, with the first
    and the last of them in ms. None if they are there as they are read, or by no other unit.
    """
    settings = config.data.source.settings.get(INTERACTIONS)
    if not isinstance(settings, Mapping):
        return None
    spec = MappedTable.model_validate(
        {key: settings[key] for key in MappedTable.model_fields if key in settings}
    )
    low, high = PLAUSIBLE
    for unit, value in {None: TIME, **_readings(con, spec)}.items():
        counted = f"FROM (SELECT {value} AS ms FROM log)"
        inside = f"FILTER (ms >= {low} AND ms < {high})"
        query = f"SELECT count(*), count(*) {inside}, min(ms) {inside}, max(ms) {inside} {counted}"
        rows, plausible, first, last = one_row(con, query)
        if plausible > MOST * rows:
            return (unit, int(first), int(last)) if unit else None
    return None


def _readings(con: DuckDBPyConnection, spec: MappedTable) -> dict[str | None, str]:
    """SQL of the times of view `log` in ms as each other unit reads them, by unit."""
    name = RAW + TIME
    raw = identifier(name) if name in con.table("log").columns else "CAST(NULL AS VARCHAR)"
    unit = "" if spec.time_format else spec.time_unit
    number = f"TRY_CAST({raw} AS DOUBLE)"
    if unit in MS:
        number = f"coalesce({TIME} / {MS[unit]}, {number})"
    readings: dict[str | None, str] = {
        other: f"({number}) * {factor}" for other, factor in MS.items() if other != unit
    }
    iso = MappedTable(time_unit="iso", timezone=spec.timezone)
    return readings | ({} if unit == "iso" else {"iso": time_ms(raw, "VARCHAR", iso)})
