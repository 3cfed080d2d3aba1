"""How well an index answers when few items are eligible, and when to compare all of them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from dssm_core.aliases import Bools, Floats
from dssm_core.retrieval.eligible import Eligible
from dssm_core.retrieval.indexes import measure
from dssm_core.retrieval.item_index import EXACT_BELOW, ItemIndex

SHARES = (0.01, 0.1, 0.5)  # of the items that are eligible
QUERIES = 200


@dataclass(frozen=True)
class FilterTrial:
    """Search among some of the items.

    share: of the items that are eligible. items: `random` ones, or `similar` ones, whose vectors
    lie close together, as those of one category do. recall: of the list of exact search over the
    eligible items. queries_per_s: all queries at once, on all threads. exact: whether all eligible
    items are compared, because they are few or the index alone finds too few of them.
    """

    share: float
    items: str
    recall: float
    queries_per_s: float
    exact: bool


def try_filters(
    index: ItemIndex, queries: Floats, seed: int
) -> tuple[ItemIndex, list[FilterTrial]]:
    """The index with `exact_below` as high as needed to find ENOUGH of exact search's lists, and a
    trial for each share of eligible items.

    queries: [Q, D], of which QUERIES at most are drawn by `seed`.
    """
    rng = np.random.default_rng(seed)
    source = queries if len(queries) else index.vectors
    asked = np.array(source[np.sort(rng.permutation(len(source))[:QUERIES])], dtype=np.float32)
    cases = [_Case.of(index, asked, *mask) for mask in _masks(index.vectors, rng)]
    exact_below = min(EXACT_BELOW, len(index.vectors))
    if not index.finds_all:
        alone = replace(index, exact_below=0)
        poor = [case.items for case in cases if case.try_index(alone)[0] < measure.ENOUGH]
        exact_below = max([exact_below, *(items + 1 for items in poor)])
    chosen = replace(index, exact_below=exact_below)
    trials = []
    for case in cases:
        recall, rate = case.try_index(chosen)
        exact = case.items < exact_below
        trials.append(FilterTrial(case.share, case.kind, round(recall, 4), round(rate, 1), exact))
    return chosen, trials


@dataclass(frozen=True)
class _Case:
    """Queries among some of the items, and what exact search finds for them."""

    share: float
    kind: str
    eligible: Eligible
    items: int
    sample: measure.Sample

    @classmethod
    def of(
        cls, index: ItemIndex, queries: Floats, share: float, kind: str, allowed: Bools
    ) -> _Case:
        """Search exactly for queries [Q, D] among the allowed items [N]."""
        eligible = Eligible(len(allowed), allowed)
        items = int(allowed.sum())
        k = min(measure.K, items)
        scores = index.exact(queries, k, eligible)[1]
        return cls(
            share, kind, eligible, items, measure.Sample(index.vectors, queries, k, scores[:, -1])
        )

    def try_index(self, index: ItemIndex) -> tuple[float, float]:
        """Recall against exact search over the eligible items, and queries per second."""
        started = measure.clock()
        rows, _ = index.search(self.sample.queries, self.sample.k, self.eligible)
        seconds = measure.clock() - started
        return self.sample.recall(rows), len(self.sample.queries) / seconds


def _masks(vectors: Floats, rng: np.random.Generator) -> Iterator[tuple[float, str, Bools]]:
    n = len(vectors)
    for share in SHARES:
        count = max(1, round(share * n))
        random = np.zeros(n, dtype=np.bool_)
        random[rng.permutation(n)[:count]] = True
        yield share, "random", random
        similarity = np.asarray(vectors @ vectors[int(rng.integers(n))])
        similar = np.zeros(n, dtype=np.bool_)
        similar[np.argpartition(-similarity, count - 1)[:count]] = True
        yield share, "similar", similar
