"""A sample of the warm queries: their scores, and a few of them as examples."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from dssm_core.aliases import Bools, Doubles, Floats, Ints
from dssm_core.evaluation.answers import QueryVectors, ServedRun, answer
from dssm_core.evaluation.queries import Slice
from dssm_core.retrieval.exact_search import exact_search

QUERIES = 2_000  # size of the sample
PAIRS = 10 * QUERIES  # scored pairs of query and item


@dataclass(frozen=True)
class QuerySample:
    """Some queries of a slice: their positions in it [Q], vectors [Q, D], which are cold [Q] (see
    QueryVectors); and the items [N, D].
    """

    rows: Ints
    vectors: Floats
    cold: Bools
    items: Floats


@dataclass(frozen=True)
class Example:
    """A query: its user, newest history, first recalled items and which of them are hits.

    relevant: number of items that it should find; hit: how many of them it found.
    """

    user: Any
    history: Ints
    recalled: Ints
    hits: Bools
    relevant: int
    hit: int


def sample_queries(opened: ServedRun, warm: Slice) -> QuerySample:
    """At most QUERIES warm queries at even steps, with the vectors that the served index gets."""
    n = len(warm.codes)
    rows = np.linspace(0, n - 1, min(QUERIES, n)).astype(np.int64)
    encoded = opened.encode(warm.take(rows))
    return QuerySample(rows, encoded.part(0, len(rows)), encoded.cold, opened.items)


def relevant_pairs(warm: Slice, rows: Ints) -> tuple[Ints, Ints]:
    """Every relevant item of some queries: (position in `rows`, item row), 2 x [P].

    rows: [Q], ascending.
    """
    query, item = np.divmod(warm.relevant.keys, warm.relevant.n_items)
    position = np.searchsorted(rows, query)
    sampled = rows[np.minimum(position, len(rows) - 1)] == query
    return position[sampled], item[sampled]


def similarities(
    sample: QuerySample, warm: Slice, k: int, seed: int
) -> tuple[dict[str, Doubles], float]:
    """Scores by kind of item: relevant, random, and at position k of the list; and the share of
    relevant items that score at least as high as position k.
    """
    position, item = relevant_pairs(warm, sample.rows)
    rng = np.random.default_rng(seed)
    chosen = np.sort(rng.permutation(len(position))[:PAIRS])
    position = position[chosen]
    item = item[chosen]
    others = rng.integers(0, len(sample.items), len(position))
    vectors = sample.vectors[position]
    clicked = np.einsum("pd,pd->p", vectors, sample.items[item])
    random = np.einsum("pd,pd->p", vectors, sample.items[others])
    cut = exact_search(sample.items, sample.vectors, k)[1][:, -1]  # [Q]
    scores = {
        "clicked in the test set": clicked,
        "random item": random,
        f"position {min(k, len(sample.items))} of the list": cut,
    }
    return scores, float((clicked >= cut[position]).mean())


def examples(
    opened: ServedRun, sample: QuerySample, warm: Slice, count: int, most: int
) -> list[Example]:
    """`count` queries from the best answered to the worst by the gate's recall, at even steps.

    Each has its newest history and its first `most` items.
    """
    config = opened.run.config
    vectors = QueryVectors(sample.vectors, np.arange(len(sample.rows)), sample.cold)
    queries = warm.take(sample.rows)
    search = opened.search(opened.served, vectors)
    rows = answer(search, queries, 0, len(sample.rows), config.gate.k)  # [Q, k]
    keys = sample.rows[:, None] * warm.relevant.n_items + rows
    hits = np.isin(keys, warm.relevant.keys) & (rows >= 0)
    relevant = warm.relevant.counts[sample.rows]
    order = np.argsort(-hits.sum(1) / relevant, kind="stable")
    chosen = order[np.unique(np.linspace(0, len(order) - 1, count).astype(np.int64))]
    newest = queries.histories.take(chosen).latest(most)
    return [
        Example(
            user=queries.users[query],
            history=newest.items[newest.ptr[nth] : newest.ptr[nth + 1]],
            recalled=rows[query, :most],
            hits=hits[query, :most],
            relevant=int(relevant[query]),
            hit=int(hits[query].sum()),
        )
        for nth, query in enumerate(chosen)
    ]
