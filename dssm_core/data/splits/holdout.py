"""Holdout: a random share of each user's rows is the test set, for logs without times."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal
from zoneinfo import ZoneInfo

from pydantic import BaseModel, ConfigDict, Field

from dssm_core.columns import ITEM, ROW, USER
from dssm_core.data.splits.protocol import CLEAN, NO_DAYS, POSITIVE, Window


class Holdout(BaseModel):
    """A random share of each user's positives, and of the user's negatives, is the test set; at
    least one row of each stays in train. A hash of seed, user and item chooses the rows, so that
    the same log gives the same split everywhere.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)
    by_time: ClassVar[bool] = False
    by_row: ClassVar[bool] = False
    relevant: ClassVar[None] = None
    ignores: ClassVar[tuple[str, ...]] = NO_DAYS
    kind: Literal["holdout"] = "holdout"
    share: Annotated[float, Field(gt=0, lt=1)] = 0.2
    """Share of a user's rows in the test set, 0 to 1."""
    seed: Annotated[int, Field(ge=0)] = 42
    """Seed of the choice; it does not follow the config's seed."""

    @property
    def title(self) -> str:
        """The kind of the split."""
        return self.kind

    def window(self, zone: ZoneInfo) -> None:
        """None: the split uses all rows."""

    def part(self, window: Window | None) -> str:
        """SQL: the part of a row."""
        group = f"PARTITION BY {USER}, {POSITIVE}, {CLEAN}"
        rows = f"count(*) OVER ({group})"
        hashed = f"md5(concat_ws(':', {self.seed}, {USER}, {ITEM}))"
        position = f"row_number() OVER ({group} ORDER BY {hashed}, {ROW})"
        tested = f"least(round({self.share} * {rows}), {rows} - 1)"
        return f"CASE WHEN {position} <= {tested} THEN 'test' ELSE 'train' END"

    def advice(self, part: str) -> str:
        """Which rows are in test."""
        return (
            f"a share of {self.share:g} of each user's rows is in test, and one row always stays in"
            " train: raise split.share, or use a log with more rows a user"
        )
