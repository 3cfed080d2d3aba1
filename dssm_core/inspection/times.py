"""How a column of times is written, and in which time zone the log's people may live."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

from duckdb import DuckDBPyConnection

from dssm_core.data.sql import literal
from dssm_core.inspection.columns import Column, text_of

# The years 1990 to 2100 in each unit: they do not overlap.
UNITS = {"s": 1, "ms": 1_000, "us": 1_000_000, "ns": 1_000_000_000}
FIRST_S = 631_152_000  # 1990-01-01
LAST_S = 4_102_444_800  # 2100-01-01
ENOUGH = 0.99  # share of the cells that must be times
FIRST_ROWS = 1_000  # in which a format must read a cell to be tried on all
NIGHT_HOUR = 4  # people click least around this local hour
QUIET = 0.5  # share of the mean hour below which an hour is night
LOCAL = (
    "the times have no UTC offset and are read as UTC: set `timezone` of the table if they are not"
)
FORMATS = (
    "%m/%d/%Y %I:%M:%S %p",
    "%m/%d/%Y %H:%M:%S",
    "%m/%d/%Y %H:%M",
    "%m/%d/%Y",
    "%d/%m/%Y %H:%M:%S",
    "%d/%m/%Y %H:%M",
    "%d/%m/%Y",
    "%d.%m.%Y %H:%M:%S",
    "%d.%m.%Y %H:%M",
    "%d.%m.%Y",
    "%d-%m-%Y %H:%M:%S",
    "%d-%m-%Y",
    "%Y/%m/%d %H:%M:%S",
    "%Y/%m/%d",
    "%Y%m%d%H%M%S",
    "%Y%m%d",
    "%a %b %d %H:%M:%S %z %Y",
    "%d/%b/%Y:%H:%M:%S %z",
)
# One place for each hour of UTC offset, of those where most people live.
PLACES = (
    "America/Los_Angeles",
    "America/Denver",
    "America/Chicago",
    "America/New_York",
    "America/Sao_Paulo",
    "Europe/London",
    "Europe/Berlin",
    "Europe/Istanbul",
    "Asia/Dubai",
    "Asia/Karachi",
    "Asia/Kolkata",
    "Asia/Dhaka",
    "Asia/Bangkok",
    "Asia/Shanghai",
    "Asia/Tokyo",
    "Australia/Sydney",
)


@dataclass(frozen=True)
class TimeGuess:
    """How times are written: a unit, or a format of strptime. doubts: what may be wrong."""

    unit: str | None = None
    format: str | None = None
    doubts: tuple[str, ...] = ()

    @property
    def settings(self) -> dict[str, str]:
        """The settings of a table."""
        if self.format is not None:
            return {"time_format": self.format}
        return {} if self.unit is None else {"time_unit": self.unit}


def unit_of(column: Column) -> str | None:
    """The unit of a column of times by its magnitude, `iso` for text; None if it is neither."""
    if column.is_timestamp:
        return "iso"
    if column.low is not None and column.high is not None and column.numbers >= ENOUGH:
        for unit, per_s in UNITS.items():
            if FIRST_S * per_s <= column.low and column.high < LAST_S * per_s:
                return unit
    return "iso" if column.times >= ENOUGH else None


def guess_time(con: DuckDBPyConnection, table: str, column: Column) -> TimeGuess | None:
    """How the times of a column are written; None if it holds no times."""
    unit = unit_of(column)
    if unit is not None:
        local = unit == "iso" and not column.is_timestamp and not column.zoned
        return TimeGuess(unit, doubts=(LOCAL,) if local else ())
    some = [text for text in FORMATS if _share(con, table, column.name, text, FIRST_ROWS)]
    formats = [text for text in some if _share(con, table, column.name, text) >= ENOUGH]
    return guess_format(formats) if formats else None


def guess_format(formats: Sequence[str]) -> TimeGuess:
    """The first of the formats that read all cells, with a doubt if day and month may differ."""
    first = formats[0]
    swapped = first.replace("%m", "%\0").replace("%d", "%m").replace("%\0", "%d")
    doubts = [] if "%z" in first else [LOCAL]
    if swapped in formats[1:]:
        doubts.append(f"day and month cannot be told apart: it may be {swapped!r} as well")
    return TimeGuess(format=first, doubts=tuple(doubts))


def _share(
    con: DuckDBPyConnection, table: str, name: str, text: str, rows: int | None = None
) -> float:
    """The share of the filled cells in all or the first rows that a format reads."""
    parsed = f"try_strptime(v, {literal(text)}) IS NOT NULL"
    limit = "" if rows is None else f" LIMIT {rows}"
    cells = f"SELECT {text_of(name)} AS v FROM {table}{limit}"
    query = f"SELECT avg(CAST({parsed} AS INT)) FROM ({cells}) WHERE v IS NOT NULL"
    (share,) = con.execute(query).fetchall()[0]
    return share or 0.0


def quiet_hour(hours: Sequence[int]) -> int | None:
    """The middle of the quietest five hours of a day in UTC; None if no hours are quiet enough.

    hours: [24] rows in each hour of the day.
    """
    total = sum(hours)
    sums = [sum(hours[(middle + step) % 24] for step in range(-2, 3)) for middle in range(24)]
    middle = min(range(24), key=sums.__getitem__)
    return middle if total and sums[middle] / 5 < QUIET * total / 24 else None


def zones_at(offset_h: int, time_ms: int) -> list[str]:
    """Places whose offset from UTC is about so many hours at a time."""
    at = datetime.fromtimestamp(time_ms / 1000, UTC)
    offsets = {name: ZoneInfo(name).utcoffset(at) for name in PLACES}
    return [
        name
        for name, offset in offsets.items()
        if offset is not None and abs(offset.total_seconds() / 3600 - offset_h) <= 0.5
    ]


def zone_doubt(hours: Sequence[int], time_ms: int) -> str:
    """A sentence on the time zone in which days begin, from when people rest."""
    quiet = quiet_hour(hours)
    if quiet is None:
        return "no night shows in the hours of the log, so the time zone is not guessed: UTC"
    offset = (NIGHT_HOUR - quiet + 12) % 24 - 12
    near = zones_at(offset, time_ms)
    such = f", such as {near[0]}" if near else ""
    if abs(offset) <= 1:
        return f"the log is quietest around {quiet:02d}:00 UTC, as if people lived near UTC"
    return (
        f"the log is quietest around {quiet:02d}:00 UTC: if that is night, its people live near"
        f" UTC{offset:+d}{such}"
    )
