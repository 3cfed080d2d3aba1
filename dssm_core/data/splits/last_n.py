"""Rolling last n: each user's newest rows test, one by one, each with all that came before it as
history.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal
from zoneinfo import ZoneInfo

from pydantic import BaseModel, ConfigDict, Field, field_validator

from dssm_core.columns import LABEL, ROW, USER
from dssm_core.data.comparison import COMPARISON
from dssm_core.data.splits.protocol import CLEAN, NO_DAYS, Window


class LastN(BaseModel):
    """The newest `n` rows of each user test, whatever their label; users with no more rows than
    that only train.

    Each positive test row is a query of its own: one item is relevant, the history holds the
    positives up to the row before, earlier test rows among them (the protocol of MetaSpore's
    MovieLens benchmark, with n = 3).
    relevant: a comparison such as `rating > 2` that a positive test row must meet to be a query;
    the others are history only.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    by_time: ClassVar[bool] = False
    by_row: ClassVar[bool] = True
    ignores: ClassVar[tuple[str, ...]] = NO_DAYS
    kind: Literal["last_n"] = "last_n"
    n: Annotated[int, Field(ge=1)] = 3
    relevant: str | None = None

    @field_validator("relevant")
    @classmethod
    def _a_comparison(cls, value: str | None) -> str | None:
        if value is not None and not COMPARISON.fullmatch(value):
            raise ValueError(
                "write a column, one of == != > >= < <=, and a number, such as `rating > 2`"
            )
        if value is not None and value.split()[0] == LABEL:
            raise ValueError(
                "positives hold one label: name another column, such as `rating > 2`, and let data.positive take both"
            )
        return value

    @property
    def title(self) -> str:
        """The kind."""
        return self.kind

    def window(self, zone: ZoneInfo) -> None:
        """All rows."""

    def part(self, window: Window | None) -> str:
        """SQL."""
        user = f"PARTITION BY {USER}, {CLEAN}"
        rows, age = f"count(*) OVER ({user})", f"row_number() OVER ({user} ORDER BY {ROW} DESC)"
        return f"CASE WHEN {rows} > {self.n} AND {age} <= {self.n} THEN 'test' ELSE 'train' END"

    def advice(self, part: str) -> str:
        """Who is tested."""
        return (
            f"users with more than {self.n} rows are tested on their newest {self.n}: lower split.n"
        )
