"""A split that the data defines: a column of each row says its part."""

from __future__ import annotations

from typing import ClassVar, Literal
from zoneinfo import ZoneInfo

from pydantic import BaseModel, ConfigDict

from dssm_core.columns import PART
from dssm_core.data.splits.protocol import NO_DAYS, Window


class Fixed(BaseModel):
    """The column `part` of the interactions is 'train' or 'test'; rows with another value are
    outside.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    by_time: ClassVar[bool] = False
    by_row: ClassVar[bool] = False
    relevant: ClassVar[None] = None
    ignores: ClassVar[tuple[str, ...]] = NO_DAYS
    kind: Literal["fixed"] = "fixed"

    @property
    def title(self) -> str:
        """The kind of the split."""
        return self.kind

    def window(self, zone: ZoneInfo) -> None:
        """None: the split uses all rows."""

    def part(self, window: Window | None) -> str:
        """SQL: the part of a row."""
        return f"CASE WHEN {PART} IN ('train', 'test') THEN {PART} ELSE 'outside' END"

    def advice(self, part: str) -> str:
        """What the column must contain."""
        return (
            f"no row has {part!r} in column {PART!r}: map a column of the log to {PART!r}, or"
            " choose another split.kind"
        )
