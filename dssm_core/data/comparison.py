"""A comparison of a column with a number, such as `rating > 2`: what counts as a positive.

The expression is parsed strictly; nothing is evaluated.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from dssm_core.aliases import Bools
from dssm_core.columns import LABEL
from dssm_core.config.data import COMPARISON
from dssm_core.data.sql import identifier
from dssm_core.errors import ConfigError, DataError

COMPARE: dict[str, Callable[[Any, Any], Any]] = {
    "==": np.equal,
    "!=": np.not_equal,
    ">=": np.greater_equal,
    "<=": np.less_equal,
    ">": np.greater,
    "<": np.less,
}
SQL_OPERATORS = {"==": "=", "!=": "<>"}


@dataclass(frozen=True)
class Comparison:
    """`column operator number`."""

    column: str
    operator: str
    number: str

    def sql(self, columns: list[str]) -> str:
        """SQL: 1 where the comparison is true, else 0. `columns` are those of the interactions.

        Without a column `label`, a comparison of `label` is 1 for every row: a log of clicks has
        positives only.
        """
        if self.column == LABEL and LABEL not in columns:
            return "1"
        operator = SQL_OPERATORS.get(self.operator, self.operator)
        return f"CASE WHEN {identifier(self.column)} {operator} {self.number} THEN 1 ELSE 0 END"

    def mask(self, rows: pd.DataFrame) -> Bools:
        """Where the comparison is true of rows, [n]. Raises DataError if they lack the column."""
        if self.column not in rows:
            raise DataError(
                f"`{self.column} {self.operator} {self.number}` needs a column {self.column!r}, but"
                f" the rows have only {', '.join(rows.columns)}: correct the name of the column"
            )
        values = rows[self.column].to_numpy(dtype=np.float64)
        return np.asarray(COMPARE[self.operator](values, float(self.number)))


def parse_comparison(expression: str) -> Comparison:
    """Parse `column operator number`. Raises ConfigError for anything else."""
    match = COMPARISON.fullmatch(expression)
    if not match:
        raise ConfigError(
            f"data.positive is {expression!r}: write a column, one of == != > >= < <=, and a"
            " number, such as `rating > 2`"
        )
    return Comparison(match[1], match[2], match[3])
