"""Slices of the test rows that a mean hides: new users, heavy users, fresh items, the long tail."""

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
HEAVY = 0.9  # quantile of training positives per user
HEAD = 0.8  # share of the training positives that the items outside the tail hold


def groups(train: Clicks, codes: Ints, rows: Ints, cutoff_ms: int | None) -> dict[str, Bools]:
    """Which test rows belong to each slice, all [P].

    codes: the user of each row, 0 unknown; rows: its item, -1 if the training set lacks it.
    new_users: without a positive in the training set. heavy_users: the tenth with most positives.
    fresh_items: first taken in the last 24 hours before `cutoff_ms`; left out without a cutoff in
    time. tail_items: in the training set, but not among the most taken items that together hold
    HEAD of its positives.
    """
    taken = np.bincount(train.users, minlength=codes.max(initial=0) + 1)
    counts = train.counts()
    heavy = np.quantile(taken[taken > 0], HEAVY) if len(train.users) else np.inf
    known_item = rows >= 0
    masks = {
        "new_users": taken[codes] == 0,
        "heavy_users": (taken[codes] > 0) & (taken[codes] >= heavy),
    }
    if cutoff_ms is not None:
        first = np.full(train.n_items, np.iinfo(np.int64).max)
        np.minimum.at(first, train.items, train.times_ms)
        fresh = (first >= cutoff_ms - DAY_MS) & (counts > 0)
        masks["fresh_items"] = known_item & np.append(fresh, False)[rows]
    tail = ~_head(counts) & (counts > 0)
    masks["tail_items"] = known_item & np.append(tail, False)[rows]
    return masks


def _head(counts: Ints) -> Bools:
    """The fewest items, most taken first, that hold HEAD of all positives: [N]."""
    order = np.argsort(-counts, kind="stable")
    before = np.cumsum(counts[order]) - counts[order]
    head = np.zeros(len(counts), dtype=np.bool_)
    head[order[before < HEAD * counts.sum()]] = True
    return head
