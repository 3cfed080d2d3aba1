"""Holdout: a random share of each user's rows tests, where there is no time to go by."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal
from zoneinfo import ZoneInfo

from pydantic import BaseModel, ConfigDict, Field

from dssm_core.columns import ITEM, ROW, USER
from dssm_core.data.splits.protocol import CLEAN, NO_DAYS, POSITIVE, Window


class Holdout(BaseModel):
    """`share` of each user's positives, and of its negatives, tests; at least one row of each sort
    stays in train.

    Which ones, a hash of `seed`, user and item decides, so that the same log gives the same split
    everywhere.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    by_time: ClassVar[bool] = False
    by_row: ClassVar[bool] = False
    relevant: ClassVar[None] = None
    ignores: ClassVar[tuple[str, ...]] = NO_DAYS
    kind: Literal["holdout"] = "holdout"
    share: Annotated[float, Field(gt=0, lt=1)] = 0.2
    seed: Annotated[int, Field(ge=0)] = 42

    @property
    def title(self) -> str:
        """The kind."""
        return self.kind

    def window(self, zone: ZoneInfo) -> None:
        """All rows."""

    def part(self, window: Window | None) -> str:
        """SQL."""
        alike = f"PARTITION BY {USER}, {POSITIVE}, {CLEAN}"
        rows = f"count(*) OVER ({alike})"
        place = f"row_number() OVER ({alike} ORDER BY md5(concat_ws(':', {self.seed}, {USER}, {ITEM})), {ROW})"
        return f"CASE WHEN {place} <= least(round({self.share} * {rows}), {rows} - 1) THEN 'test' ELSE 'train' END"

    def advice(self, part: str) -> str:
        """Who is tested."""
        return f"{self.share:g} of each user's rows test, one always trains: raise split.share, or give users with more rows"
