"""What every baseline does: one ranked list for all users, from what was known at a moment."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import numpy.typing as npt

from dssm_core.artifacts import JSON

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Clicks:
    """Positives before a cutoff: user code, item row 0..n_items-1 and time in ms, all [n] int64."""

    users: Ints
    items: Ints
    times_ms: Ints
    n_items: int

    def between(self, start_ms: int, end_ms: int) -> Clicks:
        """Those with start_ms <= time < end_ms."""
        kept = (self.times_ms >= start_ms) & (self.times_ms < end_ms)
        return Clicks(self.users[kept], self.items[kept], self.times_ms[kept], self.n_items)

    def counts(self) -> Ints:
        """Clicks an item, [n_items]."""
        return np.bincount(self.items, minlength=self.n_items).astype(np.int64)


@dataclass(frozen=True)
class Ranking:
    """Item rows, best first, and what the baseline chose on the way (small plain JSON)."""

    rows: Ints
    info: JSON = field(default_factory=dict)


class Baseline(Protocol):
    """A family member: its fields are its settings."""

    def rank(self, clicks: Clicks, as_of_ms: int, k: int) -> Ranking:
        """At most k item rows, best first, from clicks before `as_of_ms` only."""


def top(k: int, *counts: Ints) -> Ints:
    """The k rows with most counts; ties go to the next counts, then to the lower row. Rows that are 0 everywhere are left out."""
    order = np.lexsort((np.arange(len(counts[0])), *(-c for c in reversed(counts))))[:k]
    clicked = np.sum(counts, axis=0)[order] > 0
    return np.asarray(order[clicked], dtype=np.int64)
