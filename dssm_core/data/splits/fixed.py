"""A split that the data brings along: each row says where it belongs."""

from __future__ import annotations

from typing import ClassVar, Literal
from zoneinfo import ZoneInfo

from pydantic import BaseModel, ConfigDict

from dssm_core.columns import PART
from dssm_core.data.splits.protocol import NO_DAYS, Window


class Fixed(BaseModel):
    """Interactions have a column `part` that holds 'train' or 'test'; rows with another value are
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
        """The kind."""
        return self.kind

    def window(self, zone: ZoneInfo) -> None:
        """All rows."""

    def part(self, window: Window | None) -> str:
        """SQL."""
        return f"CASE WHEN {PART} IN ('train', 'test') THEN {PART} ELSE 'outside' END"

    def advice(self, part: str) -> str:
        """What the column must hold."""
        return f"no row says {part!r} in its column {PART!r}: map the source's column to {PART!r}, or take another split.kind"
