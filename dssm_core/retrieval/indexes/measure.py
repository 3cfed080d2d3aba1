"""The recall of an index against exact search, and its queries per second."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from dssm_core.aliases import Floats, Ints
from dssm_core.retrieval.indexes import faiss_flat
from dssm_core.retrieval.indexes.protocol import Index

K = 200  # the default k of the gate
ENOUGH = 0.98  # recall against exact search below which a warning is logged
QUERIES = 1000  # sampled queries; they measure recall to about 0.001
ROUNDING = 1e-6  # of an inner product of unit vectors in single precision
REPEATS = 3

clock: Callable[[], float] = time.perf_counter


@dataclass(frozen=True)
class Sample:
    """Queries [Q, D] over vectors [N, D], and the inner product of each one's k-th nearest vector
    [Q] (k <= N).
    """

    vectors: Floats
    queries: Floats
    k: int
    least: Floats

    def recall(self, rows: Ints) -> float:
        """The share of the k nearest items that is in rows [Q, k], which hold no row twice. Of
        items with the same score as the k-th, any one counts.
        """
        found = np.einsum(
            "qd,qkd->qk", self.queries, self.vectors[rows]
        )  # a row of -1 reads any vector
        return float(((rows >= 0) & (found >= self.least[:, None] - ROUNDING)).mean())

    def measure(self, member: Index, index: Any) -> tuple[float, float]:
        """Recall@k, and queries per second: all queries at once, on all threads, the best of three
        runs after one that is not timed.
        """
        rows, _ = member.search(index, self.queries, self.k)
        seconds = []
        for _ in range(REPEATS):
            started = clock()
            member.search(index, self.queries, self.k)
            seconds.append(clock() - started)
        return self.recall(rows), len(self.queries) / min(seconds)


def sample(
    vectors: Floats, queries: Floats | None, k: int, count: int, seed: int, exact: Any = None
) -> Sample:
    """At most `count` of the queries, drawn by `seed`, and what exact search finds; without
    queries, vectors ask.

    exact: the exact index of the vectors, where the caller has built one.
    """
    source = vectors if queries is None or not len(queries) else queries
    drawn = np.random.default_rng(seed).permutation(len(source))[:count]
    asked, k = np.array(source[np.sort(drawn)], dtype=np.float32), min(k, len(vectors))
    flat = faiss_flat.FaissFlat()
    index = flat.build(vectors, seed) if exact is None else exact
    scores = flat.search(index, asked, k)[1]
    return Sample(vectors, asked, k, scores[:, -1])
