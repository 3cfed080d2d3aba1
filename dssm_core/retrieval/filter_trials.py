"""How well an index answers when few items are eligible, and when to compare all of them."""

from __future__ import annotations

import time
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
    items are compared, because the index alone finds too few of them or is slower.
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
    chosen = replace(index, exact_below=min(EXACT_BELOW, len(index.vectors)))
    masks = list(_masks(index.vectors, rng))
    if not index.finds_all:
        poor = [
            int(mask.sum())
            for _, _, mask in masks
            if _recall(replace(index, exact_below=0), asked, mask)[0] < measure.ENOUGH
        ]
        chosen = replace(chosen, exact_below=max([chosen.exact_below, *(n + 1 for n in poor)]))
    trials = []
    for share, items, mask in masks:
        recall, rate = _recall(chosen, asked, mask)
        exact = bool(mask.sum() < chosen.exact_below)
        trials.append(FilterTrial(share, items, round(recall, 4), round(rate, 1), exact))
    return chosen, trials


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


def _recall(index: ItemIndex, queries: Floats, mask: Bools) -> tuple[float, float]:
    """Recall against exact search over the eligible items, and queries per second."""
    eligible = Eligible(len(mask), mask)
    k = min(measure.K, int(mask.sum()))
    least = index.exact(queries, k, eligible)[1][:, -1:]
    started = time.perf_counter()
    rows, scores = index.search(queries, k, eligible)
    seconds = time.perf_counter() - started
    found = (rows >= 0) & (scores >= least - measure.ROUNDING)
    return float(found.mean()), len(queries) / seconds
