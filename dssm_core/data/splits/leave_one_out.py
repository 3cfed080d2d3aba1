"""Leave one out: the last positive of each user is in test, the rows before it are in train."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal
from zoneinfo import ZoneInfo

from pydantic import BaseModel, ConfigDict, Field

from dssm_core.columns import ROW, USER
from dssm_core.data.splits.protocol import CLEAN, NO_DAYS, POSITIVE, Window


class LeaveOneOut(BaseModel):
    """Each user's last positive is the test set. Rows after it are outside the window."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)
    by_time: ClassVar[bool] = False
    by_row: ClassVar[bool] = False
    relevant: ClassVar[None] = None
    ignores: ClassVar[tuple[str, ...]] = NO_DAYS
    kind: Literal["leave_one_out"] = "leave_one_out"
    min_positives: Annotated[int, Field(ge=2)] = 2
    """Number of positives below which a user is only in train."""

    @property
    def title(self) -> str:
        """The kind of the split."""
        return self.kind

    def window(self, zone: ZoneInfo) -> None:
        """None: the split uses all rows."""

    def part(self, window: Window | None) -> str:
        """SQL: the part of a row."""
        user = f"OVER (PARTITION BY {USER}, {CLEAN})"
        last = f"max({ROW}) FILTER ({POSITIVE} = 1) {user}"
        positives = f"sum({POSITIVE}) {user}"
        return (
            f"CASE WHEN {positives} < {self.min_positives} THEN 'train'"
            f" WHEN {ROW} = {last} THEN 'test' WHEN {ROW} > {last} THEN 'outside' ELSE 'train' END"
        )

    def advice(self, part: str) -> str:
        """Which users are tested."""
        return (
            f"users with {self.min_positives} positives or more are tested on the last one: lower"
            " split.min_positives, or check data.positive"
        )
