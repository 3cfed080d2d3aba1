"""What counts as a positive: one strict comparison such as `rating > 2`; nothing is ever evaluated."""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from dssm_core.columns import LABEL
from dssm_core.data.sources.columns import quote
from dssm_core.errors import ConfigError, DataError

COMPARISON = re.compile(
    r"\s*([A-Za-z_][A-Za-z0-9_]*)\s*(==|!=|>=|<=|>|<)\s*([+-]?\d+(?:\.\d+)?)\s*"
)


@dataclass(frozen=True)
class Positive:
    """A comparison of a column with a number."""

    column: str
    operator: str
    number: str

    def sql(self, columns: list[str]) -> str:
        """SQL: 1 or 0. A log of clicks only (no `label` column, and none asked for) has positives
        only.
        """
        if self.column == LABEL and LABEL not in columns:
            return "1"
        operator = {"==": "=", "!=": "<>"}.get(self.operator, self.operator)
        return f"CASE WHEN {quote(self.column)} {operator} {self.number} THEN 1 ELSE 0 END"

    def holds(self, rows: pd.DataFrame) -> npt.NDArray[np.bool_]:
        """Which rows it is true of; DataError where they lack the column. → [n]"""
        if self.column not in rows:
            raise DataError(
                f"{self.column!r} is compared with {self.number}, but the rows have only {', '.join(rows.columns)}"
            )
        compare = {
            "==": np.equal,
            "!=": np.not_equal,
            ">=": np.greater_equal,
            "<=": np.less_equal,
            ">": np.greater,
            "<": np.less,
        }
        return np.asarray(
            compare[self.operator](rows[self.column].to_numpy(dtype=np.float64), float(self.number))
        )


def parse_positive(expression: str) -> Positive:
    """Parse `column operator number`; ConfigError when it is anything else."""
    match = COMPARISON.fullmatch(expression)
    if not match:
        raise ConfigError(
            f"data.positive is {expression!r}: write a column, one of == != > >= < <=, and a number, such as `rating > 2`"
        )
    return Positive(match[1], match[2], match[3])
