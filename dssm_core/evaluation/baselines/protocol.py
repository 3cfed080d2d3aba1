"""What every baseline does: fitted on what was known at a moment, it ranks items for any history."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Protocol

import numpy as np

from dssm_core.aliases import JSON, Ints
from dssm_core.features.histories import Histories
from dssm_core.features.popularity import Clicks


class Fitted(Protocol):
    """A baseline that knows the clicks before its moment."""

    @property
    def info(self) -> JSON:
        """What it chose on the way: small plain JSON."""

    def lists(self, histories: Histories, k: int) -> Ints:
        """Item rows [B, k] for B queries, best first, none twice, -1 where a list is shorter.

        Items of the history are listed like any other: who evaluates leaves them out where the
        protocol says so.
        """


class Baseline(Protocol):
    """A family member: its fields are its settings."""

    needs_time: ClassVar[bool]
    """Whether it needs a split by time."""
    ignores: ClassVar[tuple[str, ...]]
    """Settings of the config that have no effect under this baseline, by dotted path."""

    def variants(self, clicks: Clicks, as_of_ms: int) -> dict[str, Ints]:
        """Lists of items [n] among which `fit` chooses one for everybody, by name; evaluation
        reports the recall of each. Empty for most members.
        """

    def fit(self, clicks: Clicks, as_of_ms: int) -> Fitted:
        """From clicks before `as_of_ms` only; items without one are never listed."""


@dataclass(frozen=True)
class OneList:
    """The same list for everybody: rows [n], best first."""

    rows: Ints
    info: JSON = field(default_factory=dict)

    def lists(self, histories: Histories, k: int) -> Ints:
        """See Fitted."""
        first = self.rows[:k]
        padded = np.pad(first, (0, k - len(first)), constant_values=-1)
        return np.broadcast_to(padded, (len(histories), k))


def fill(rows: Ints, popular: Ints) -> Ints:
    """Short lists [B, k], padded by -1 at the end, go on with the first of `popular` [n] that they
    do not hold.

    A user with a short history has few neighbours; without this a personal list would lose to a
    popular one by its length alone.
    """
    n, k = rows.shape
    more = np.pad(
        popular[:k], (0, max(0, k - len(popular))), constant_values=-1
    )  # k are enough: a list of m holds at most m of them
    place = np.full(
        max(rows.max(initial=0), more.max(initial=0)) + 2, k
    )  # of an item in `more`; k = not there; the last is -1's
    place[more[more >= 0]] = np.flatnonzero(more >= 0)
    held = np.zeros((n, k + 1), dtype=np.bool_)
    held[np.arange(n)[:, None], place[rows]] = True
    both = np.concatenate([rows, np.where(held[:, :k], -1, more)], axis=1)
    order = np.argsort(both < 0, axis=1, kind="stable")[
        :, :k
    ]  # what is listed keeps its order and comes first
    return np.take_along_axis(both, order, 1)
