"""What the rules judge: slim pandas frames of days and rows; and the valid rows by SQL alone."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING

from duckdb import DuckDBPyConnection

from dssm_core.columns import AVAILABLE_FROM, AVAILABLE_UNTIL, INTERACTIONS, ITEM, ROW, TIME
from dssm_core.config import Config
from dssm_core.config.row_conditions import read_row_condition
from dssm_core.data import drift
from dssm_core.data.database import one_row
from dssm_core.data.ingest import IngestedTables, number_sql
from dssm_core.data.row_conditions import rows_sql
from dssm_core.data.rules import (
    CONDITIONS,
    DAYS,
    HAS_VECTOR,
    ID_TABLES,
    IN_TABLE,
    KEYS,
    NEVER_AVAILABLE,
    UNWEIGHTED,
    WRONG_VECTOR,
    required_columns,
    row_rules,
)
from dssm_core.data.sources.canonical import RAW
from dssm_core.data.split import window_of
from dssm_core.data.sql import identifier, numbered_rows, parquet
from dssm_core.data.vectors import has_vector_sql, wrong_vector_sql
from dssm_core.data.weights import unweighted_sql
from dssm_core.runs.memory import planned

if TYPE_CHECKING:
    import pandas as pd

BYTES_A_ROW = 250  # of a frame while it is judged


def days_frame(measured: drift.Drift) -> pd.DataFrame:
    """One row a local day of the window: days, rows."""
    import pandas as pd

    return pd.DataFrame({DAYS: measured.days, "rows": measured.rows})


def drift_frame(measured: drift.Drift) -> pd.DataFrame:
    """One row a day of the window: days, and by each measure the day's distance from the days
    before it (NaN where there is nothing to compare with).
    """
    import pandas as pd

    changes = {
        name: [math.nan if value is None else value for value in values]
        for name, values in measured.changes.items()
    }
    return pd.DataFrame({DAYS: measured.days, **changes})


@dataclass(frozen=True)
class RowFrames:
    """The rows of a table in frames, read when they are asked for. rows: number of all rows."""

    rows: int
    frames: Iterator[pd.DataFrame]

    def __iter__(self) -> Iterator[pd.DataFrame]:
        return self.frames


def row_frames(
    con: DuckDBPyConnection,
    config: Config,
    table: str,
    tables: IngestedTables,
    rows_at_once: int | None = None,
) -> RowFrames:
    """The rows of a table with their number ROW and the columns that its rules are about. Equal ids
    of users or items are in one frame.

    Of the interactions, from view `log`: the rows in the window of the split and the rows without a
    time. rows_at_once: rows of a frame, about; by default as many as fit into the memory.
    """
    at_once = rows_at_once or planned(config.resources).rows(BYTES_A_ROW)
    judged = {rule.column for rule in row_rules(config, table, tables)}
    named = set(required_columns(config, table)) & set(tables.columns(table)) - judged
    columns = [ROW, *(_column(config, name, table, tables) for name in sorted(judged))]
    columns += [f"NULL AS {identifier(name)}" for name in sorted(named)]  # only their names count
    source = f"({numbered_rows(tables.file(table))})"
    condition = _in_window(config) if table == INTERACTIONS else "true"
    (rows,) = one_row(con, f"SELECT count(*) FROM {source} WHERE {condition}")
    query = f"SELECT {', '.join(columns)} FROM {source} WHERE {condition}"
    if table == INTERACTIONS:
        return RowFrames(rows, _frames(con, query, at_once))
    parts = max(1, math.ceil(rows / at_once))
    queries = [f"{query} AND hash({KEYS[table][0]}) % {parts} = {part}" for part in range(parts)]
    return RowFrames(rows, chain.from_iterable(_frames(con, part, rows) for part in queries))


def _frames(con: DuckDBPyConnection, query: str, rows: int) -> Iterator[pd.DataFrame]:
    """The result of a query in frames of so many rows; one empty frame if it has none."""
    reader = con.sql(query).to_arrow_reader(max(1, rows))
    batch = next(reader, None)
    if batch is None:
        yield reader.schema.empty_table().to_pandas()
    while batch is not None:
        yield batch.to_pandas()
        batch = next(reader, None)


def valid_rows(config: Config, tables: IngestedTables) -> str:
    """SQL: the numbers (ROW) of the rows in view `log` that break no quarantining rule.

    It needs no Great Expectations and writes no Data Docs: for rows that are read every hour.
    """
    rules = [rule for rule in row_rules(config, INTERACTIONS, tables) if rule.quarantines]
    names = sorted({rule.column for rule in rules})
    parts = [ROW, *(_column(config, name, INTERACTIONS, tables) for name in names)]
    conditions = [
        f"coalesce({condition}, true)"
        for rule in rules
        for condition in CONDITIONS[rule.kind](identifier(rule.column), rule.settings)
    ]
    columns = f"SELECT {', '.join(parts)} FROM log"
    return f"SELECT {ROW} FROM ({columns}) WHERE {' AND '.join(conditions)}"


def _in_window(config: Config) -> str:
    window = window_of(config)
    if not window:
        return "true"
    return f"{TIME} IS NULL OR ({TIME} >= {window.start_ms} AND {TIME} < {window.end_ms})"


def _column(config: Config, name: str, table: str, tables: IngestedTables) -> str:
    """SQL: a column that a rule is about. A text column with a range is parsed as numbers."""
    if name == NEVER_AVAILABLE:
        ends = f"CASE WHEN {AVAILABLE_UNTIL} <= {AVAILABLE_FROM} THEN {ITEM} END"
        return f"{ends} AS {NEVER_AVAILABLE}"
    if name == UNWEIGHTED and config.data.weight:
        positive = rows_sql(read_row_condition(config.data.positive), tables.columns(table))
        return f"{unweighted_sql(config.data.weight, positive)} AS {UNWEIGHTED}"
    for prefix, sql in ((WRONG_VECTOR, wrong_vector_sql), (HAS_VECTOR, has_vector_sql)):
        if name.startswith(prefix):
            value = sql(name.removeprefix(prefix), KEYS[table][0], tables.file(table))
            return f"{value} AS {identifier(name)}"
    types = tables.types[table]
    stem = name.removeprefix(RAW)
    if name not in types and stem not in types:
        return _in_own_table(name.removeprefix(IN_TABLE), tables)
    if stem in config.validation.ranges and types[stem] == "string":
        return number_sql(stem)[name.startswith(RAW)]
    return identifier(name) if name in types else f"CAST(NULL AS VARCHAR) AS {identifier(name)}"


def _in_own_table(key: str, tables: IngestedTables) -> str:
    """SQL: whether an id is in its own table, users or items."""
    rows = parquet(tables.file(ID_TABLES[key]))
    ids = f"SELECT {key} FROM {rows} WHERE {key} IS NOT NULL"
    return f"{key} IN ({ids}) AS {IN_TABLE}{key}"
