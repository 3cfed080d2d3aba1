"""Which items may be listed for a query, and lists that hold only those.

The server, the gate, the report and the baselines all use `eligible_lists`, so that what is judged
is what is served.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from dssm_core.aliases import Bools, Floats, Ints
from dssm_core.features.histories import Histories
from dssm_core.features.ragged import distinct

# The first k of each query: item rows and scores, 2 x [B, K], best first, -1 = none.
Lists = tuple[Ints, Floats]
MORE = 4  # factor by which a search asks for more items when too few of them were eligible


@dataclass(frozen=True)
class Eligible:
    """The items that may be listed for B queries.

    n_items: items of the catalogue. allowed: [N], the items that all queries may list; None: all
    items. excluded: the item rows that each query leaves out, such as the items that its user has
    seen; None: no query leaves any out.
    """

    n_items: int
    allowed: Bools | None = None
    excluded: Histories | None = None

    @property
    def everything(self) -> bool:
        """Whether every item may be listed for every query."""
        return self.allowed is None and self.excluded is None

    def part(self, first: int, last: int) -> Eligible:
        """The same for queries first..last-1."""
        if self.excluded is None:
            return self
        return replace(self, excluded=self.excluded.part(first, last))

    def take(self, queries: Ints) -> Eligible:
        """The same for some queries [n]."""
        if self.excluded is None:
            return self
        return replace(self, excluded=self.excluded.take(queries))

    def among_first(self, n_items: int) -> Eligible:
        """The same for an index of the first items of the catalogue."""
        allowed = None if self.allowed is None else self.allowed[:n_items]
        excluded = self.excluded
        if excluded is not None:
            held = excluded.items < n_items
            excluded = Histories.of(excluded.query[held], excluded.items[held], len(excluded))
        return Eligible(n_items, allowed, excluded)

    @property
    def most_excluded(self) -> int:
        """The largest number of items that a query leaves out."""
        return 0 if self.excluded is None else int(self.excluded.counts.max(initial=0))

    def counts(self, queries: int) -> Ints:
        """Number of eligible items of each query. → [queries]"""
        allowed = self.n_items if self.allowed is None else int(self.allowed.sum())
        counts = np.full(queries, allowed, dtype=np.int64)
        if self.excluded is None:
            return counts
        pairs = distinct(self.excluded.query * self.n_items + self.excluded.items)
        query, item = np.divmod(pairs, self.n_items)
        if self.allowed is not None:
            query = query[self.allowed[item]]
        return counts - np.bincount(query, minlength=queries)

    def keep(self, rows: Ints, scores: Floats) -> Lists:
        """Lists without the items that are not eligible: the others move up. [B, K] → [B, K]"""
        kept = rows >= 0
        if self.allowed is not None:
            kept &= self.allowed[rows]
        if self.excluded is not None:
            kept &= ~self.excluded.contains(rows)
        order = np.argsort(~kept, axis=1, kind="stable")
        return (
            np.take_along_axis(np.where(kept, rows, -1), order, 1),
            np.take_along_axis(np.where(kept, scores, -np.inf).astype(np.float32), order, 1),
        )


def eligible_lists(search: Callable[[int], Lists], eligible: Eligible, k: int) -> Lists:
    """The k best eligible items of each query. → [B, k]; -1 where there are no more.

    search: the first n items of each query, for any n; fewer than n columns, or a row that ends in
    -1, mean that there are no more. It is asked for more until every list is full.
    """
    if eligible.everything:
        return pad_lists(*search(min(k, eligible.n_items)), k)
    asked = min(k + eligible.most_excluded, eligible.n_items)
    while True:
        rows, scores = search(asked)
        kept_rows, kept_scores = eligible.keep(rows, scores)
        kept_rows, kept_scores = pad_lists(kept_rows, kept_scores, k)
        no_more = rows.shape[1] < asked or asked == eligible.n_items
        if no_more or ((kept_rows[:, -1] >= 0) | (rows[:, -1] < 0)).all():
            return kept_rows, kept_scores
        asked = min(MORE * asked, eligible.n_items)


def pad_lists(rows: Ints, scores: Floats, k: int) -> Lists:
    """The first k positions of lists [B, K], with row -1 and score -inf behind a shorter list."""
    missing = k - rows.shape[1]
    if missing <= 0:
        return rows[:, :k], scores[:, :k]
    return (
        np.pad(rows, ((0, 0), (0, missing)), constant_values=-1),
        np.pad(scores, ((0, 0), (0, missing)), constant_values=-np.inf),
    )
