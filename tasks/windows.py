"""Airflow's partitions for landed days and the windows that wait for them.

Dag files and the scheduler import this module, so it imports nothing heavy.
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

# one partition a landed day; its key is the ISO date
INTERACTIONS = Asset(name="interactions", uri="dssm://interactions")
WINDOW_DAYS = int(os.environ.get("DSSM_WINDOW_DAYS", "7"))  # train and test days of $DSSM_CONFIG


class TrailingDaysMapper(PartitionMapper):
    """Maps a day to the `days` windows that contain it: they end on the day or after it."""

    def __init__(self, days: int, *, max_downstream_keys: int | None = None) -> None:
        super().__init__(max_downstream_keys=max_downstream_keys)
        self.days = days

    def to_downstream(self, key: str) -> Iterable[str]:
        """The last days of the windows that contain the day `key`."""
        return [_later(key, number) for number in range(self.days)]

    def serialize(self) -> dict[str, Any]:
        """The settings, as Airflow stores them."""
        return {**super().serialize(), "days": self.days}

    @classmethod
    def deserialize(cls, data: dict[str, Any]) -> PartitionMapper:
        """Build it from the settings of `serialize`."""
        return cls(data["days"], max_downstream_keys=data.get("max_downstream_keys"))


class TrailingDaysWindow(Window):
    """Maps a window to its `days` days, the last one and the days before it: the inverse of
    TrailingDaysMapper.
    """

    def __init__(self, days: int) -> None:
        super().__init__(direction=Window.Direction.BACKWARD)
        self.days = days

    def to_upstream(self, decoded_downstream: str) -> Iterable[str]:
        """The days of the window that ends on a day."""
        return [_later(decoded_downstream, -number) for number in range(self.days)]

    def serialize(self) -> dict[str, Any]:
        """The settings, as Airflow stores them."""
        return {"days": self.days}

    @classmethod
    def deserialize(cls, data: dict[str, Any]) -> Window:
        """Build it from the settings of `serialize`."""
        return cls(data["days"])


def check_daily(cron: str, timezone: str) -> None:
    """Raise ValueError unless a cron expression fires once on each local day, at a time that exists
    on every day.

    If the change to summer time skips that time, Airflow assigns the ticks around it to wrong days,
    and one day never lands.
    """
    zone = ZoneInfo(timezone)
    ticks = croniter(cron, datetime.now(UTC).replace(tzinfo=None))
    for before, tick in pairwise(ticks.get_next(datetime) for _ in range(400)):
        if tick.date() - before.date() != timedelta(days=1):
            raise ValueError(
                f"DSSM_SCHEDULE {cron!r} fires at {before}, then at {tick}: give one time of day"
                " for every day, such as '30 3 * * *'"
            )
        if tick.replace(tzinfo=zone).astimezone(UTC).astimezone(zone).replace(tzinfo=None) != tick:
            raise ValueError(
                f"DSSM_SCHEDULE {cron!r} fires at {tick}, which does not exist in {timezone}"
                " (change to summer time): give another time of day"
            )


def _later(day: str, days: int) -> str:
    return (date.fromisoformat(day) + timedelta(days=days)).isoformat()
