"""The days that arrive and the windows that wait for them, in Airflow's words. Light: Dag files and
the scheduler import it.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from typing import Any
from zoneinfo import ZoneInfo

from airflow.partition_mappers.base import PartitionMapper
from airflow.partition_mappers.window import Window
from airflow.sdk import Asset
from croniter import croniter

INTERACTIONS = Asset(
    name="interactions", uri="dssm://interactions"
)  # a partition a landed day, its key the ISO date
WINDOW_DAYS = int(os.environ.get("DSSM_WINDOW_DAYS", "7"))  # train and test days of $DSSM_CONFIG


class TrailingDaysMapper(PartitionMapper):
    """A day belongs to the windows that end on it and on the days after it: `days` of them."""

    def __init__(self, days: int, *, max_downstream_keys: int | None = None) -> None:
        super().__init__(max_downstream_keys=max_downstream_keys)
        self.days = days

    def to_downstream(self, key: str) -> Iterable[str]:
        """The last days of the windows that hold the day `key`."""
        return [_later(key, number) for number in range(self.days)]

    def serialize(self) -> dict[str, Any]:
        """As Airflow keeps it."""
        return {**super().serialize(), "days": self.days}

    @classmethod
    def deserialize(cls, data: dict[str, Any]) -> PartitionMapper:
        """From what `serialize` gave."""
        return cls(data["days"], max_downstream_keys=data.get("max_downstream_keys"))


class TrailingDaysWindow(Window):
    """A window is its last day and the days before it, `days` in all: the other direction of
    TrailingDaysMapper.
    """

    def __init__(self, days: int) -> None:
        super().__init__(direction=Window.Direction.BACKWARD)
        self.days = days

    def to_upstream(self, decoded_downstream: str) -> Iterable[str]:
        """The days of the window that ends on a day."""
        return [_later(decoded_downstream, -number) for number in range(self.days)]

    def serialize(self) -> dict[str, Any]:
        """As Airflow keeps it."""
        return {"days": self.days}

    @classmethod
    def deserialize(cls, data: dict[str, Any]) -> Window:
        """From what `serialize` gave."""
        return cls(data["days"])


def check_daily(cron: str, timezone: str) -> None:
    """ValueError where a cron line does not fire once on each local day, at a time that every day
    has.

    Where clocks are put forward over that time Airflow names the days around it wrongly: one would
    never land.
    """
    zone, ticks = ZoneInfo(timezone), croniter(cron, datetime.now(UTC).replace(tzinfo=None))
    for before, tick in pairwise(ticks.get_next(datetime) for _ in range(400)):
        if tick.date() - before.date() != timedelta(days=1):
            raise ValueError(
                f"DSSM_SCHEDULE {cron!r} fires at {before}, then at {tick}: give one time of every day, such as '30 3 * * *'"
            )
        if tick.replace(tzinfo=zone).astimezone(UTC).astimezone(zone).replace(tzinfo=None) != tick:
            raise ValueError(
                f"DSSM_SCHEDULE {cron!r} fires at {tick}, which clocks in {timezone} leave out: give another time of day"
            )


def _later(day: str, days: int) -> str:
    return (date.fromisoformat(day) + timedelta(days=days)).isoformat()
