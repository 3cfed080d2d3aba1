"""Parts of the test rows that a mean hides: newcomers, heavy users, fresh items, the long tail."""

from __future__ import annotations

import numpy as np

from dssm_core.aliases import Bools, Ints
from dssm_core.columns import DAY_MS
from dssm_core.features.popularity import Clicks

TITLES = {
    "new_users": "new users",
    "heavy_users": "heavy users",
    "fresh_items": "fresh items",
    "tail_items": "long tail",
}
HEAVY = 0.9  # quantile of train positives a user
HEAD = 0.8  # share of train positives that the items outside the tail hold


def groups(train: Clicks, codes: Ints, rows: Ints, cutoff_ms: int | None) -> dict[str, Bools]:
    """Which test rows belong to each part. codes: the user of each, 0 unknown; rows: its item, -1
    where train knows none; all [P].

    new_users: without a positive in train. heavy_users: of the tenth with the most. fresh_items:
    first taken in the last 24 hours before `cutoff_ms` (left out where there is no cutoff in time).
    tail_items: known, and not among the most taken items that hold four fifths of train's
    positives.
    """
    taken, counts = np.bincount(train.users, minlength=codes.max(initial=0) + 1), train.counts()
    heavy = np.quantile(taken[taken > 0], HEAVY) if len(train.users) else np.inf
    known = rows >= 0
    found = {
        "new_users": taken[codes] == 0,
        "heavy_users": (taken[codes] > 0) & (taken[codes] >= heavy),
    }
    if cutoff_ms is not None:
        first = np.full(train.n_items, np.iinfo(np.int64).max)
        np.minimum.at(first, train.items, train.times_ms)
        fresh = (first >= cutoff_ms - DAY_MS) & (counts > 0)
        found["fresh_items"] = known & np.append(fresh, False)[rows]
    found["tail_items"] = known & np.append(~_head(counts) & (counts > 0), False)[rows]
    return found


def _head(counts: Ints) -> Bools:
    """The fewest items, most taken first, that hold HEAD of all. [N]"""
    order = np.argsort(-counts, kind="stable")
    before = np.cumsum(counts[order]) - counts[order]
    head = np.zeros(len(counts), dtype=np.bool_)
    head[order[before < HEAD * counts.sum()]] = True
    return head
