"""What every split does: say in SQL whether a row belongs to train or to test."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, Protocol
from zoneinfo import ZoneInfo

from pydantic import AfterValidator

from dssm_core.columns import INTERNAL, LABEL
from dssm_core.config.conditions import Condition
from dssm_core.config.row_conditions import check_row_condition

CLEAN = f"{INTERNAL}clean"  # whether a row is not quarantined
NO_DAYS = ("validation.min_rows_per_day", "validation.drift.warn")  # of no effect without days
POSITIVE = f"{INTERNAL}positive"  # 1 or 0: whether `data.positive` is true of a row


def _check_relevant(value: str | None) -> str | None:
    if value is None:
        return None
    check_row_condition(value)
    if LABEL in {leaf.column for leaf in Condition(value).leaves()}:
        raise ValueError(
            "all positives have the same label: compare another column, such as `rating > 2`,"
            " and let data.positive include both kinds of rows"
        )
    return value


Relevant = Annotated[str | None, AfterValidator(_check_relevant)]


@dataclass(frozen=True)
class Window:
    """Times in ms UTC: train is [start, cutoff), test is [cutoff, end)."""

    start_ms: int
    cutoff_ms: int
    end_ms: int


class Split(Protocol):
    """A family member: its fields are its settings."""

    by_time: ClassVar[bool]
    """Whether one cutoff separates train from test for all users."""
    by_row: ClassVar[bool]
    """Whether each test row is a query, with the rows before it as history."""

    ignores: ClassVar[tuple[str, ...]]
    """Settings of the config that have no effect under this split, by dotted path."""

    @property
    def kind(self) -> str:
        """The member's name in the family: a field, so that config.json holds it."""
        ...

    @property
    def relevant(self) -> str | None:
        """The condition that a positive test row must meet to be a query; None asks nothing."""
        ...

    @property
    def title(self) -> str:
        """The name of the folder of its runs: the test day, or the kind."""

    def window(self, zone: ZoneInfo) -> Window | None:
        """The times that the split uses; None if it uses all rows."""

    def part(self, window: Window | None) -> str:
        """SQL: 'train', 'test' or 'outside' for a clean row."""

    def advice(self, part: str) -> str:
        """Why train or test may be empty, and what to change: the end of an error message."""
