"""Rolling last n: the newest rows of each user are the test set, each with all rows before it as
history.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal
from zoneinfo import ZoneInfo

from pydantic import BaseModel, ConfigDict, Field

from dssm_core.columns import ROW, USER
from dssm_core.data.splits.protocol import CLEAN, NO_DAYS, Relevant, Window


class LastN(BaseModel):
    """The newest `n` rows of each user are the test set, whatever their label; users with `n` rows
    or fewer are only in train. Each positive test row is a query: one item is relevant, and the
    history holds the positives before it, earlier test rows too (the protocol of MetaSpore's
    MovieLens benchmark, with n = 3).
    """

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)
    by_time: ClassVar[bool] = False
    by_row: ClassVar[bool] = True
    ignores: ClassVar[tuple[str, ...]] = NO_DAYS
    kind: Literal["last_n"] = "last_n"
    n: Annotated[int, Field(ge=1)] = 3
    """Number of test rows of a user."""
    relevant: Relevant = None
    """A condition such as `rating > 2` that a positive test row must meet to be a query; other rows
    are only history. Null makes all of them queries."""

    @property
    def title(self) -> str:
        """The kind of the split."""
        return self.kind

    def window(self, zone: ZoneInfo) -> None:
        """None: the split uses all rows."""

    def part(self, window: Window | None) -> str:
        """SQL: the part of a row."""
        user = f"PARTITION BY {USER}, {CLEAN}"
        rows = f"count(*) OVER ({user})"
        age = f"row_number() OVER ({user} ORDER BY {ROW} DESC)"
        return f"CASE WHEN {rows} > {self.n} AND {age} <= {self.n} THEN 'test' ELSE 'train' END"

    def advice(self, part: str) -> str:
        """Which users are tested."""
        return (
            f"users with more than {self.n} rows are tested on their newest {self.n}: lower split.n"
        )
