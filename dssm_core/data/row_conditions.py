"""Which rows of a log meet a condition, such as `event == 'click' and seconds >= 30`, by SQL."""

from __future__ import annotations

from collections.abc import Iterable

import duckdb
import numpy as np
import pandas as pd
import pyarrow as pa

from dssm_core.aliases import Bools
from dssm_core.columns import LABEL
from dssm_core.config import Data
from dssm_core.config.conditions import Comparison, Condition, Every, Not, OneOf, Some, Test, Value
from dssm_core.config.row_conditions import is_met_without_label, read_row_condition
from dssm_core.data.sql import identifier, literal
from dssm_core.errors import DataError, shorten

EVERY = "1"  # the condition that every row meets
SQL_OPERATORS = {"==": "=", "!=": "<>"}


def rows_sql(condition: Condition, columns: Iterable[str]) -> str:
    """SQL: 1 where a row meets the condition, else 0. A missing value meets no comparison.

    columns: those of the interactions. Without a column `label`, a condition that is one comparison
    of `label` is 1 for every row: a log of clicks has positives only.
    """
    if is_met_without_label(condition) and LABEL not in columns:
        return EVERY
    return f"CASE WHEN {_sql(condition.tree)} THEN 1 ELSE 0 END"


def label_sql(data: Data, columns: Iterable[str]) -> str:
    """SQL: the label of a row, 1 for positives, 0 for negatives, NULL for neither. columns: see
    `rows_sql`.
    """
    positive = rows_sql(read_row_condition(data.positive), columns)
    if data.negative is None or positive == EVERY:
        return positive
    negative = rows_sql(read_row_condition(data.negative), columns)
    return f"CASE WHEN {positive} = 1 THEN 1 WHEN {negative} = 1 THEN 0 END"


def rows_that_meet(condition: Condition, rows: pd.DataFrame) -> Bools:
    """Which rows meet the condition, [n]. Raises DataError if they lack one of its columns."""
    names = list(dict.fromkeys(leaf.column for leaf in condition.leaves()))
    for name in names:
        if name not in rows:
            raise DataError(
                f"`{shorten(condition.text)}` needs a column {name!r}, but the rows have only"
                f" {', '.join(rows.columns)}: correct the name of the column"
            )
    with duckdb.connect() as con:
        con.register("rows", pa.Table.from_pandas(rows[names], preserve_index=False))
        met = con.sql(f"SELECT {rows_sql(condition, names)} AS met FROM rows").fetchnumpy()["met"]
    return np.asarray(met, dtype=np.bool_)


def _sql(test: Test) -> str:
    if isinstance(test, Every | Some):
        word = " AND " if isinstance(test, Every) else " OR "
        return f"({word.join(map(_sql, test.parts))})"
    if isinstance(test, Not):
        return f"(NOT {_sql(test.part)})"
    if isinstance(test, OneOf):
        values = ", ".join(map(_value, test.values))
        return f"coalesce({_column(test)} IN ({values}), false)" if values else "false"
    if isinstance(test, Comparison):
        operator = SQL_OPERATORS.get(test.operator, test.operator)
        return f"coalesce({_column(test)} {operator} {_value(test.value)}, false)"
    raise AssertionError(f"{test} is no condition on rows")  # read_row_condition refuses it


def _column(test: Comparison | OneOf) -> str:
    values = (test.value,) if isinstance(test, Comparison) else test.values
    name = identifier(test.column)
    return f"CAST({name} AS VARCHAR)" if any(isinstance(value, str) for value in values) else name


def _value(value: Value) -> str:
    return literal(value) if isinstance(value, str) else repr(value + 0)  # true is 1
