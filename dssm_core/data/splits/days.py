"""Days: whole local days before a cutoff are train, whole local days after it are test."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from typing import Annotated, ClassVar, Literal, Self
from zoneinfo import ZoneInfo

from pydantic import BaseModel, ConfigDict, Field, model_validator

from dssm_core.columns import TIME
from dssm_core.data.splits.protocol import Relevant, Window

FIRST_YEAR = 1678  # the years that pandas' times of nanoseconds hold
LAST_YEAR = 2261


class Days(BaseModel):
    """Whole local days: `train_days` days before the test days. With many days on both sides this
    is a split by one global cutoff date.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)
    by_time: ClassVar[bool] = True
    by_row: ClassVar[bool] = False
    ignores: ClassVar[tuple[str, ...]] = ()
    kind: Literal["days"] = "days"
    test_day: date
    """The first test day."""
    train_days: Annotated[int, Field(ge=2)] = 6
    """Number of days before the first test day to train on."""
    test_days: Annotated[int, Field(ge=1)] = 1
    """Number of test days."""
    validation_days: Annotated[int, Field(ge=1)] = 1
    """Number of the last train days that choose the number of epochs; then all train days are
    trained on."""
    relevant: Relevant = None
    """A condition such as `event == 'purchase'` that a positive of the test days must meet to count
    as relevant. It changes what is judged only: other positives still train, and are in histories.
    Null counts all of them."""

    @model_validator(mode="after")
    def _check_validation_days(self) -> Self:
        if self.validation_days >= self.train_days:
            raise ValueError(
                f"validation_days {self.validation_days} leaves none of {self.train_days}"
                " train_days: lower validation_days, or raise train_days"
            )
        return self

    @model_validator(mode="after")
    def _check_years(self) -> Self:
        test_day = self.test_day.toordinal()
        first = test_day - self.train_days
        last = test_day + self.test_days - 1
        if first < date(FIRST_YEAR, 1, 1).toordinal() or last > date(LAST_YEAR, 12, 31).toordinal():
            raise ValueError(
                f"the window of train_days {self.train_days} and test_days {self.test_days} around"
                f" test_day {self.test_day} is not within the years {FIRST_YEAR} to {LAST_YEAR}:"
                " correct test_day, or lower the numbers of days"
            )
        return self

    @property
    def title(self) -> str:
        """The first test day as an ISO date."""
        return self.test_day.isoformat()

    @property
    def days(self) -> list[date]:
        """The local days of the window: train, then test."""
        return [
            self.test_day + timedelta(days=offset)
            for offset in range(-self.train_days, self.test_days)
        ]

    def edges_ms(self, zone: ZoneInfo) -> list[int]:
        """The start of each day of the window, then the end of the last day, ms UTC."""
        return [day_start_ms(day, zone) for day in (*self.days, self.days[-1] + timedelta(days=1))]

    def window(self, zone: ZoneInfo) -> Window:
        """From local midnight to local midnight, so a day may have 23 or 25 hours."""
        edges = self.edges_ms(zone)
        return Window(edges[0], edges[self.train_days], edges[-1])

    def part(self, window: Window | None) -> str:
        """SQL: the part of a row inside the window."""
        assert window is not None
        return f"CASE WHEN {TIME} < {window.cutoff_ms} THEN 'train' ELSE 'test' END"

    def advice(self, part: str) -> str:
        """Which days were expected to have rows."""
        if part == "train":
            return (
                f"the {self.train_days} days before {self.test_day} have none; set split.test_day"
            )
        return f"{self.test_day} has none; set split.test_day"


def cutoff_ms(split: object, zone: ZoneInfo) -> int | None:
    """The time at which the test days of a split begin, ms UTC; None for a split without days."""
    return split.window(zone).cutoff_ms if isinstance(split, Days) else None


def day_start_ms(day: date, zone: ZoneInfo) -> int:
    """The first instant of a local day, ms UTC, even if summer time begins at midnight."""
    midnight = datetime(day.year, day.month, day.day, tzinfo=zone)
    return int(midnight.astimezone(UTC).timestamp()) * 1000
