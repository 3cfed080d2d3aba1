"""Exact search: all items are compared, a block of queries and items at a time."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dssm_core.aliases import Bools, Floats, Ints
from dssm_core.features.ragged import positions

ITEMS_AT_ONCE = 50_000
QUERIES_AT_ONCE = 128  # with ITEMS_AT_ONCE items, 26 MB of scores, most of which stay in the cache
COPIED_BELOW = 0.25  # share of allowed items below which only these are compared
SLABS = 16  # parts of a row of scores whose maxima give the bound of `top_k`


def exact_search(
    vectors: Floats, queries: Floats, k: int, allowed: Bools | None = None
) -> tuple[Ints, Floats]:
    """The k rows of largest inner product for each query [B, D], by comparing all vectors [N, D].
    → rows and scores [B, min(k, N)] each, best first, equal scores by row.

    allowed: [N], the rows that may be returned; None: all. Where there are fewer than k, the rest
    is row -1, score -inf. Only a block of the vectors, which may lie on disk, is in memory at once.
    """
    queries = np.ascontiguousarray(queries, dtype=np.float32)
    shape = len(queries), min(k, len(vectors))
    best = np.full(shape, -1, dtype=np.int64), np.full(shape, -np.inf, dtype=np.float32)
    for first in range(0, len(vectors), ITEMS_AT_ONCE):
        items = slice(first, first + ITEMS_AT_ONCE)
        block = _Block.of(first, vectors[items], None if allowed is None else allowed[items])
        for begin in range(0, len(queries) if block.count else 0, QUERIES_AT_ONCE):
            part = slice(begin, begin + QUERIES_AT_ONCE)
            found = block.search(queries[part], k)
            best[0][part], best[1][part] = _merge((best[0][part], best[1][part]), found)
    return best


@dataclass(frozen=True)
class _Block:
    """Vectors [n, D] that are compared at once.

    rows: [n] of the catalogue. count: how many of them may be returned. penalty: [n], -inf for the
    others and 0 for these; None if all may be returned.
    """

    vectors: Floats
    rows: Ints
    count: int
    penalty: Floats | None = None

    @classmethod
    def of(cls, first: int, vectors: Floats, allowed: Bools | None) -> _Block:
        """The vectors of a catalogue from row `first` on. If few rows are allowed, only their
        vectors are copied and compared; if many are, comparing all of them is faster than a copy.
        """
        rows = np.arange(first, first + len(vectors))
        if allowed is None or allowed.all():
            return cls(np.ascontiguousarray(vectors, dtype=np.float32), rows, len(rows))
        count = int(allowed.sum())
        if count < COPIED_BELOW * len(rows):
            return cls(np.asarray(vectors[allowed], dtype=np.float32), rows[allowed], count)
        penalty = np.where(allowed, np.float32(0), np.float32(-np.inf))
        return cls(np.ascontiguousarray(vectors, dtype=np.float32), rows, count, penalty)

    def search(self, queries: Floats, k: int) -> tuple[Ints, Floats]:
        """The best of these rows for queries [B, D]. → [B, min(k, count)]"""
        scores = queries @ self.vectors.T
        if self.penalty is not None:
            scores += self.penalty
        places, found = top_k(scores, min(k, self.count))
        return self.rows[places], found


def top_k(scores: Floats, k: int) -> tuple[Ints, Floats]:
    """The k largest scores of each row [B, N], k <= N. → positions and scores [B, k] each, best
    first, equal scores by position.

    A row is cut into slabs of equal width, and the maximum over the slabs is taken at each position
    of a slab. The k-th largest maximum bounds the k-th largest score from below, so that only the
    few scores that reach this bound have to be sorted.
    """
    n = scores.shape[1]
    slabs = max(1, min(SLABS, n // k))
    width = n // slabs
    maxima = scores[:, : slabs * width].reshape(len(scores), slabs, width).max(axis=1)
    bound = np.partition(maxima, width - k, axis=1)[:, width - k, None]
    row, position = np.divmod(np.flatnonzero(scores >= bound), n)
    counts = np.bincount(row, minlength=len(scores))
    at = positions(counts)
    found = np.full((len(scores), counts.max(initial=k)), -np.inf, dtype=scores.dtype)
    found[row, at] = scores[row, position]
    places = np.zeros(found.shape, dtype=np.int64)
    places[row, at] = position
    order = np.argsort(-found, axis=1, kind="stable")[:, :k]
    return np.take_along_axis(places, order, 1), np.take_along_axis(found, order, 1)


def _merge(best: tuple[Ints, Floats], more: tuple[Ints, Floats]) -> tuple[Ints, Floats]:
    """The best of two lists of each query, [B, k] and [B, n]. → [B, k]"""
    rows = np.concatenate([best[0], more[0]], axis=1)
    scores = np.concatenate([best[1], more[1]], axis=1)
    order = np.argsort(-scores, axis=1, kind="stable")[:, : best[0].shape[1]]
    return np.take_along_axis(rows, order, 1), np.take_along_axis(scores, order, 1)
