"""What the rules judge: slim pandas frames of days and rows; and the valid rows by SQL alone."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from duckdb import DuckDBPyConnection

from dssm_core.columns import AVAILABLE_FROM, AVAILABLE_UNTIL, INTERACTIONS, ITEM, ROW, TIME
from dssm_core.config import Config
from dssm_core.data import drift
from dssm_core.data.ingest import IngestedTables, number_sql
from dssm_core.data.rules import (
    CONDITIONS,
    DAYS,
    ID_TABLES,
    IN_TABLE,
    NEVER_AVAILABLE,
    required_columns,
    row_rules,
)
from dssm_core.data.sources.canonical import RAW
from dssm_core.data.split import window_of
from dssm_core.data.sql import identifier, numbered_rows, parquet

if TYPE_CHECKING:
    import pandas as pd


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


def row_frame(
    con: DuckDBPyConnection, config: Config, table: str, tables: IngestedTables
) -> pd.DataFrame:
    """The rows of a table with their number ROW and the columns that its rules are about.

    Of the interactions, from view `log`: the rows in the window of the split and the rows without a
    time.
    """
    names = {rule.column for rule in row_rules(config, table, tables)}
    names |= set(required_columns(config, table)) & set(tables.columns(table))
    parts = [ROW, *(_column(config, name, table, tables) for name in sorted(names))]
    if table == INTERACTIONS:
        source = f"log WHERE {_in_window(config)}"
    else:
        source = f"({numbered_rows(tables.file(table))})"
    frame: pd.DataFrame = (
        con.sql(f"SELECT {', '.join(parts)} FROM {source}").to_arrow_table().to_pandas()
    )
    return frame


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
