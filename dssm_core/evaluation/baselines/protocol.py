"""The interface of a baseline: fitted on the clicks before a moment, it ranks items."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Protocol

import numpy as np

from dssm_core.aliases import JSON, Ints
from dssm_core.features.histories import Histories
from dssm_core.features.popularity import Clicks


class Ranker(Protocol):
    """Ranks items for a history."""

    def lists(self, histories: Histories, k: int) -> Ints:
        """Distinct item rows [B, k] for B queries, best first, -1 where a list is shorter.

        Items of the history are listed like any other: the evaluation leaves them out where the
        protocol says so.
        """


class Fitted(Ranker, Protocol):
    """A baseline that was fitted on the clicks before a moment."""

    @property
    def info(self) -> JSON:
        """What it chose when it was fitted: small plain JSON."""


class Baseline(Protocol):
    """A family member: its fields are its settings."""

    needs_time: ClassVar[bool]
    """Whether it needs a split by time."""
    ignores: ClassVar[tuple[str, ...]]
    """Settings of the config that have no effect under this baseline, by dotted path."""

    def variants(self, clicks: Clicks, as_of_ms: int) -> dict[str, Ints]:
        """The lists [n] from which `fit` chooses one for every query, by name.

        The evaluation reports the recall of each. Empty for most members.
        """

    def fit(self, clicks: Clicks, as_of_ms: int, seed: int = 0) -> Fitted:
        """Fit on the clicks before `as_of_ms` only; an item without one is never listed.

        seed: of what the member draws, unless its own settings have a seed.
        """


@dataclass(frozen=True)
class OneList:
    """The same list for every query: rows [n], best first."""

    rows: Ints
    info: JSON = field(default_factory=dict)

    def lists(self, histories: Histories, k: int) -> Ints:
        """See Ranker."""
        first = self.rows[:k]
        padded = np.pad(first, (0, k - len(first)), constant_values=-1)
        return np.broadcast_to(padded, (len(histories), k))


def fill(rows: Ints, popular: Ints) -> Ints:
    """Fill short lists [B, k], which end in -1, with the first of `popular` [n] that they lack.

    A user with a short history has few neighbours; without this step a personal list would lose to
    a popular one by its length alone.
    """
    n, k = rows.shape
    # k popular items are enough: a list of m items holds at most m of them
    more = np.pad(popular[:k], (0, max(0, k - len(popular))), constant_values=-1)
    # position of each item in `more`, k if it is not there; the last entry belongs to row -1
    position = np.full(max(rows.max(initial=0), more.max(initial=0)) + 2, k)
    position[more[more >= 0]] = np.flatnonzero(more >= 0)
    listed = np.zeros((n, k + 1), dtype=np.bool_)
    listed[np.arange(n)[:, None], position[rows]] = True
    both = np.concatenate([rows, np.where(listed[:, :k], -1, more)], axis=1)
    order = np.argsort(both < 0, axis=1, kind="stable")[
        :, :k
    ]  # stable: the list itself comes first
    return np.take_along_axis(both, order, 1)
