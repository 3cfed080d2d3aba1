"""Whole local days: train before a moment, test after it, for everybody."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from typing import Annotated, ClassVar, Literal, Self
from zoneinfo import ZoneInfo

from pydantic import BaseModel, ConfigDict, Field, model_validator

from dssm_core.columns import TIME
from dssm_core.data.splits.protocol import Window


class Days(BaseModel):
    """`train_days` whole days before the test day(s); `test_day` is the first of `test_days`.

    With many days on both sides this is the split by one global cutoff date. The last
    `validation_days` of train choose how long to train; then all of them are trained on.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    by_time: ClassVar[bool] = True
    by_row: ClassVar[bool] = False
    relevant: ClassVar[None] = None
    ignores: ClassVar[tuple[str, ...]] = ()
    kind: Literal["days"] = "days"
    test_day: date
    train_days: Annotated[int, Field(ge=2)] = 6
    test_days: Annotated[int, Field(ge=1)] = 1
    validation_days: Annotated[int, Field(ge=1)] = 1

    @model_validator(mode="after")
    def _some_days_are_left(self) -> Self:
        if self.validation_days >= self.train_days:
            raise ValueError(
                f"validation_days {self.validation_days} leaves none of {self.train_days} train_days: lower it, or give more days"
            )
        return self

    @property
    def title(self) -> str:
        """The first test day, ISO."""
        return self.test_day.isoformat()

    @property
    def days(self) -> list[date]:
        """The window's local days, train then test."""
        return [
            self.test_day + timedelta(days=offset)
            for offset in range(-self.train_days, self.test_days)
        ]

    def edges_ms(self, zone: ZoneInfo) -> list[int]:
        """Where each day of the window starts, then where the last one ends, ms UTC."""
        return [day_start_ms(day, zone) for day in (*self.days, self.days[-1] + timedelta(days=1))]

    def window(self, zone: ZoneInfo) -> Window:
        """Local midnights, so a day may have 23 or 25 hours."""
        edges = self.edges_ms(zone)
        return Window(edges[0], edges[self.train_days], edges[-1])

    def part(self, window: Window | None) -> str:
        """SQL, of a row inside the window."""
        assert window is not None
        return f"CASE WHEN {TIME} < {window.cutoff_ms} THEN 'train' ELSE 'test' END"

    def advice(self, part: str) -> str:
        """Which days were looked at."""
        return f"{f'the {self.train_days} days before ' if part == 'train' else ''}{self.test_day}: set split.test_day"


def day_start_ms(day: date, zone: ZoneInfo) -> int:
    """The first instant of a local day, ms UTC: where DST skips midnight, the instant at which the
    day begins.
    """
    midnight = datetime(day.year, day.month, day.day, tzinfo=zone)
    return int(midnight.astimezone(UTC).timestamp()) * 1000
