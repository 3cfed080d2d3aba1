"""Which items meet a condition on their columns."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import reduce
from operator import and_, or_
from typing import Any

import numpy as np
import pandas as pd

from dssm_core.aliases import Bools
from dssm_core.config.conditions import (
    Condition,
    Every,
    Holds,
    Not,
    OneOf,
    Some,
    Test,
    Value,
    time_ms,
)
from dssm_core.errors import DataError, shorten
from dssm_core.families import did_you_mean

COMPARE: dict[str, Callable[[Any, Any], Any]] = {
    "==": np.equal,
    "!=": np.not_equal,
    ">=": np.greater_equal,
    "<=": np.less_equal,
    ">": np.greater,
    "<": np.less,
}


def items_that_meet(condition: Condition, items: Mapping[str, pd.Series[Any]]) -> Bools:
    """Which items meet the condition. An item without a value meets no comparison. → [N]

    items: columns by name, [N] each. Raises DataError for another column, or a value that cannot be
    compared with the column's type.
    """

    def mask(test: Test) -> Bools:
        if isinstance(test, Every | Some):
            combine = and_ if isinstance(test, Every) else or_
            return reduce(combine, map(mask, test.parts))
        if isinstance(test, Not):
            return ~mask(test.part)
        column = _column(condition, items, test.column)
        if isinstance(test, OneOf):
            values = [_like(condition, column, value, test.column) for value in test.values]
            return np.asarray(column.isin(values), dtype=np.bool_)
        if isinstance(test, Holds):
            return _holding(condition, column, test)
        value = _like(condition, column, test.value, test.column)
        met = np.zeros(len(column), dtype=np.bool_)
        present = column.notna().to_numpy()
        met[present] = COMPARE[test.operator](column[present].to_numpy(), value)
        return met

    return mask(condition.tree)


def _holding(condition: Condition, column: pd.Series[Any], test: Holds) -> Bools:
    """The rows of a column of lists that hold a value. [N] → [N]"""
    flat = column.reset_index(drop=True).explode().dropna()
    value = _like(condition, flat, test.value, test.column)
    met = np.zeros(len(column), dtype=np.bool_)
    met[flat.index[(flat == value).to_numpy()]] = True
    return met


def _column(condition: Condition, items: Mapping[str, pd.Series[Any]], name: str) -> pd.Series[Any]:
    if name not in items:
        known = list(items)
        hint = did_you_mean(name, known) if known else "the model has no item columns"
        raise DataError(
            f"condition {shorten(condition.text)!r} names {name!r}, which is no item column of"
            f" the model: {hint}"
        )
    return items[name]


def _like(condition: Condition, column: pd.Series[Any], value: Value, name: str) -> Any:
    """The value in the type of the column; a time as text becomes ms."""
    dtype = column.dtype
    like: Any = value
    if pd.api.types.is_bool_dtype(dtype):
        wanted, fits = "true or false", isinstance(value, bool)
    elif pd.api.types.is_numeric_dtype(dtype):
        like = time_ms(value) if isinstance(value, str) else value
        wanted, fits = "a number or a time", not isinstance(like, bool | None)
    else:
        like = str(value) if isinstance(value, int) and value is not True else value
        wanted, fits = "a text", isinstance(like, str)
    if not fits:
        raise condition.error(f"compares {name!r} with another type: give {wanted}")
    return like
