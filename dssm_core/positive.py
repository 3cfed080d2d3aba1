"""What counts as a positive: one strict comparison such as `rating > 2`; nothing is ever evaluated."""

from __future__ import annotations

import re
from dataclasses import dataclass

from dssm_core.errors import ConfigError
from dssm_core.schema import LABEL
from dssm_core.sources.columns import quote

_PATTERN = re.compile(r"\s*([A-Za-z_][A-Za-z0-9_]*)\s*(==|!=|>=|<=|>|<)\s*([+-]?\d+(?:\.\d+)?)\s*")


@dataclass(frozen=True)
class Positive:
    """A comparison of a column with a number."""

    column: str
    operator: str
    number: str

    def sql(self, columns: list[str]) -> str:
        """SQL: 1 or 0. A log of clicks only (no `label` column, and none asked for) has positives only."""
        if self.column == LABEL and LABEL not in columns:
            return "1"
        operator = {"==": "=", "!=": "<>"}.get(self.operator, self.operator)
        return f"CASE WHEN {quote(self.column)} {operator} {self.number} THEN 1 ELSE 0 END"


def parse_positive(expression: str) -> Positive:
    """Parse `column operator number`; ConfigError when it is anything else."""
    match = _PATTERN.fullmatch(expression)
    if not match:
        raise ConfigError(f"data.positive is {expression!r}: write a column, one of == != > >= < <=, and a number, such as `rating > 2`")
    return Positive(match[1], match[2], match[3])
