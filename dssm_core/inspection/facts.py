"""Numbers of the whole log, read as a run would read it: days, users, items, repeats."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, timedelta

from duckdb import DuckDBPyConnection

from dssm_core.columns import DAY_MS, HOUR_MS, INTERNAL, ITEM, TIME, USER
from dssm_core.config import Config
from dssm_core.config.log_columns import number_columns
from dssm_core.config.row_conditions import read_row_condition
from dssm_core.data.database import one_row
from dssm_core.data.ingest import open_source, parse_numbers
from dssm_core.data.row_conditions import rows_sql
from dssm_core.inspection.sizes import Window

MOST_ROWS = 20_000_000  # of the log that are read; 24 bytes each
EPOCH = date(1970, 1, 1)
DAYS = range(100_000)  # since 1970 that a split by days may use: up to the year 2243
POSITIVE = f"{INTERNAL}positive"
LOG = f"{INTERNAL}log"  # the table of all rows: hashes of user and item, time, positive


@dataclass(frozen=True)
class Facts:
    """What the rows of a log are. untimed: rows whose time cannot be read. pairs: distinct pairs of
    user and item. asked: users with two positives or more. days: (day in UTC, rows). hours: [24]
    rows in each hour of the day in UTC.
    """

    rows: int
    users: int
    items: int
    positives: int
    pairs: int
    asked: int
    untimed: int
    end_ms: int
    days: tuple[tuple[date, int], ...]
    hours: tuple[int, ...]

    @property
    def cut(self) -> bool:
        """Whether the log may have more rows than were read."""
        return self.rows == MOST_ROWS

    @property
    def repeats(self) -> float:
        """The share of rows whose user had the same item in another row before."""
        return 1 - self.pairs / self.rows if self.rows else 0.0


@dataclass(frozen=True)
class DaySizes:
    """A split by days: users of the test day who are in train with an item of train (of a log of
    sessions: sessions with an item of train), and the items of train's positives.
    """

    queries: int
    items: int


def count(con: DuckDBPyConnection, config: Config) -> Facts:
    """Read the log of a config into table LOG, and count it."""
    log = parse_numbers(open_source(config).read(con).interactions, number_columns(config))
    positive = rows_sql(read_row_condition(config.data.positive), log.columns)
    log.create_view(f"{INTERNAL}source", replace=True)
    con.execute(
        f"CREATE OR REPLACE TABLE {LOG} AS SELECT hash({USER}) AS {USER}, hash({ITEM}) AS {ITEM},"
        f" {TIME}, CAST({positive} AS TINYINT) AS {POSITIVE} FROM {INTERNAL}source"
        f" WHERE {USER} IS NOT NULL AND {ITEM} IS NOT NULL LIMIT {MOST_ROWS}"
    )
    rows, users, items, positives, untimed, end_ms = one_row(
        con,
        f"SELECT count(*), count(DISTINCT {USER}), count(DISTINCT {ITEM}), sum({POSITIVE}),"
        f" count(*) - count({TIME}), max({TIME}) FROM {LOG}",
    )
    (pairs,) = one_row(con, f"SELECT count(*) FROM (SELECT DISTINCT {USER}, {ITEM} FROM {LOG})")
    several = f"SELECT {USER} FROM {LOG} WHERE {POSITIVE} = 1 GROUP BY 1 HAVING count(*) > 1"
    (asked,) = one_row(con, f"SELECT count(*) FROM ({several})")
    days = _grouped(con, f"{TIME} // {DAY_MS}")
    hours = _grouped(con, f"({TIME} // {HOUR_MS}) % 24")
    return Facts(
        rows=rows,
        users=users,
        items=items,
        positives=positives or 0,
        pairs=pairs,
        asked=asked,
        untimed=untimed,
        end_ms=end_ms or 0,
        days=tuple((EPOCH + timedelta(days=day), n) for day, n in days.items() if day in DAYS),
        hours=tuple(hours.get(hour, 0) for hour in range(24)),
    )


def _grouped(con: DuckDBPyConnection, key: str) -> dict[int, int]:
    """Number of rows by the value of an expression, in its order."""
    query = f"SELECT {key}, count(*) FROM {LOG} WHERE {TIME} IS NOT NULL GROUP BY 1 ORDER BY 1"
    return dict(con.execute(query).fetchall())


def day_sizes(con: DuckDBPyConnection, window: Window, sessions: bool = False) -> DaySizes:
    """What a split by the days of a window would ask, of table LOG. Days are those of UTC."""
    cutoff = (window.test_day - EPOCH).days * DAY_MS
    start = cutoff - window.train_days * DAY_MS
    inside = f"{POSITIVE} = 1 AND {TIME} >= "
    train = f"(FROM {LOG} WHERE {inside}{start} AND {TIME} < {cutoff})"
    test = f"(FROM {LOG} WHERE {inside}{cutoff} AND {TIME} < {cutoff + DAY_MS})"
    keys = (ITEM,) if sessions else (USER, ITEM)
    known = " AND ".join(f"{key} IN (SELECT {key} FROM {train})" for key in keys)
    (queries,) = one_row(con, f"SELECT count(DISTINCT {USER}) FROM {test} WHERE {known}")
    (items,) = one_row(con, f"SELECT count(DISTINCT {ITEM}) FROM {train}")
    return DaySizes(queries, items)
