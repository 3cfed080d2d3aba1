"""The most clicked items, of all time and of the last hours."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from dssm_core.aliases import JSON, Bools, Ints
from dssm_core.columns import DAY_MS, HOUR_MS
from dssm_core.features.interactions import Interactions
from dssm_core.features.ragged import distinct

# of the list for new users, and the defaults of the baseline recent_hot
HOT_WINDOWS_H = (1, 3, 6, 24)
HOT_PLACES = 200


@dataclass(frozen=True)
class Clicks:
    """Positives before a cutoff: user code, item row 0..n_items-1 and time in ms, all [n] int64."""

    users: Ints
    items: Ints
    times_ms: Ints
    n_items: int

    @classmethod
    def of(cls, log: Interactions) -> Clicks:
        """The positives of the coded log."""
        item = log.item.numpy() - 1
        return cls(log.user.numpy(), item, log.time.numpy(), len(log.created) - 1)

    def before(self, end_ms: int) -> Clicks:
        """The clicks with time < end_ms; times before 1970 are negative."""
        return self._where(self.times_ms < end_ms)

    def between(self, start_ms: int, end_ms: int) -> Clicks:
        """The clicks with start_ms <= time < end_ms."""
        return self._where((self.times_ms >= start_ms) & (self.times_ms < end_ms))

    def _where(self, kept: Bools) -> Clicks:
        """The kept clicks, without a copy if they follow each other, as those of some hours do in a
        log that is sorted by time.
        """
        first = int(kept.argmax()) if len(kept) else 0
        run = slice(first, first + int(kept.sum()))
        if kept[run].all():
            return Clicks(self.users[run], self.items[run], self.times_ms[run], self.n_items)
        return Clicks(self.users[kept], self.items[kept], self.times_ms[kept], self.n_items)

    def counts(self) -> Ints:
        """Number of clicks of each item, [n_items]."""
        return np.bincount(self.items, minlength=self.n_items).astype(np.int64)


def top(k: int, *counts: Ints) -> Ints:
    """The k rows with the highest counts; ties are broken by the next counts, then by the lower
    row. Rows whose counts are all 0 are left out.
    """
    order = np.lexsort((np.arange(len(counts[0])), *(-c for c in reversed(counts))))[:k]
    clicked = np.sum(counts, axis=0)[order] > 0
    return np.asarray(order[clicked], dtype=np.int64)


def popular(clicks: Clicks) -> Ints:
    """Every clicked row, most clicked first."""
    return top(clicks.n_items, clicks.counts())


def recent(clicks: Clicks, as_of_ms: int, hours: int, k: int) -> Ints:
    """The k rows with most clicks in the hours before a moment; ties are broken by all clicks."""
    return top(k, clicks.between(as_of_ms - hours * HOUR_MS, as_of_ms).counts(), clicks.counts())


@dataclass(frozen=True)
class WarmDay:
    """The distinct clicks of a day by users of the past on items of the past: query (0.. for each
    user) and item row, both [P].
    """

    query: Ints
    items: Ints

    @classmethod
    def of(cls, past: Clicks, day: Clicks) -> WarmDay:
        """The clicks of `day` whose user and item are both in `past`."""
        warm = np.isin(day.users, past.users) & np.isin(day.items, past.items)
        pairs = distinct(day.users[warm] * day.n_items + day.items[warm])
        return cls(np.unique(pairs // day.n_items, return_inverse=True)[1], pairs % day.n_items)

    def recall(self, rows: Ints) -> float:
        """Mean over users of the share of their items that is in one list; 0 without users."""
        if len(self.query) == 0:
            return 0.0
        hits = np.isin(self.items, rows)
        return float(np.mean(np.bincount(self.query, hits) / np.bincount(self.query)))


def hottest_overall(clicks: Clicks, as_of_ms: int) -> Ints:
    """Every row clicked before a moment, most clicked first; equal counts are ordered by the last
    day's clicks. → [n]
    """
    past = clicks.before(as_of_ms)
    return top(clicks.n_items, past.counts(), past.between(as_of_ms - DAY_MS, as_of_ms).counts())


def hottest_recently(
    clicks: Clicks, as_of_ms: int, windows_h: Sequence[int], places: int
) -> tuple[Ints, JSON]:
    """Rows by their clicks in the last hours before a moment, and the window that was chosen. →
    [n], info

    The window is the one of `windows_h` with the best recall in the first `places` a day earlier:
    lists as of 24 hours before, judged on those 24 hours' clicks. info: `window_h`, and each
    candidate's recall on that day.
    """
    known, start = clicks.before(as_of_ms), as_of_ms - DAY_MS
    past = known.before(start)
    day = WarmDay.of(past, known.between(start, as_of_ms))
    recalls = {hours: day.recall(recent(past, start, hours, places)) for hours in windows_h}
    window_h = max(windows_h, key=lambda hours: recalls[hours])
    validation = {f"{hours}h": round(value, 4) for hours, value in recalls.items()}
    return recent(known, as_of_ms, window_h, clicks.n_items), {
        "window_h": window_h,
        "validation": validation,
    }
