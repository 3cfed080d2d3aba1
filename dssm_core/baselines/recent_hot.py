"""Most clicked in the last hours; how many hours is chosen on the last train day."""

from __future__ import annotations

from typing import Annotated, ClassVar

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from dssm_core.baselines.protocol import Clicks, Ints, OneList, top
from dssm_core.schema import DAY_MS, HOUR_MS


class RecentHot(BaseModel):
    """`windows_h`: the candidate windows; the choice is by recall in the first `places`.

    Items without a click in the window follow in order of all their clicks.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    needs_time: ClassVar[bool] = True  # a split without a cutoff cannot use it
    windows_h: Annotated[tuple[Annotated[int, Field(ge=1)], ...], Field(min_length=1)] = (1, 3, 6, 24)
    places: Annotated[int, Field(ge=1)] = 200

    def fit(self, clicks: Clicks, as_of_ms: int) -> OneList:
        """Most clicked in the hours before `as_of_ms`; info: the window, and each candidate's recall on the last day.

        The choice is made as if a day earlier: lists as of 24 hours before, judged on those 24 hours' clicks.
        """
        known = clicks.between(0, as_of_ms)
        start = as_of_ms - DAY_MS
        past, day = known.between(0, start), known.between(start, as_of_ms)
        k = self.places
        recalls = {hours: warm_recall(past, day, recent(past, start, hours, k), k) for hours in self.windows_h}
        window_h = max(self.windows_h, key=lambda hours: recalls[hours])
        info = {"window_h": window_h, "validation": {f"{hours}h": round(value, 4) for hours, value in recalls.items()}}
        return OneList(recent(known, as_of_ms, window_h, clicks.n_items), info)


def recent(clicks: Clicks, as_of_ms: int, hours: int, k: int) -> Ints:
    """The k rows with most clicks in the hours before a moment; ties and the rest by all clicks."""
    return top(k, clicks.between(as_of_ms - hours * HOUR_MS, as_of_ms).counts(), clicks.counts())


def warm_recall(past: Clicks, day: Clicks, rows: Ints, k: int) -> float:
    """Mean recall@k of one list over the day's users, users and items of the past only; 0 where there are none."""
    warm = np.isin(day.users, past.users) & np.isin(day.items, past.items)
    pairs = np.unique(day.users[warm] * day.n_items + day.items[warm])
    if len(pairs) == 0:
        return 0.0
    _, queries = np.unique(pairs // day.n_items, return_inverse=True)
    hits = np.isin(pairs % day.n_items, rows[:k])
    return float(np.mean(np.bincount(queries, hits) / np.bincount(queries)))
