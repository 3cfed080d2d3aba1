"""Shared by personal baselines: clicks and histories as sparse matrices, and scores to ranked lists
in blocks of bounded memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import sparse

from dssm_core.aliases import JSON, Ints
from dssm_core.evaluation.baselines.protocol import fill
from dssm_core.features.histories import Histories
from dssm_core.features.popularity import Clicks
from dssm_core.features.ragged import offsets

CELLS = 2**23  # scores at once: 64 MiB of doubles, and a few more arrays of that shape
Floats = npt.NDArray[Any]  # of float32 or float64
Csr = Any  # scipy.sparse.csr_matrix has no types


@dataclass(frozen=True)
class Neighbours:
    """An item scores the sum of its similarities to the items of a history; newer ones weigh more.

    similar: CSR [N, N], row = item of the history, column = scored item; length and decay: see
    `recency`.
    """

    similar: Csr
    length: int
    decay: float
    popular: Ints
    info: JSON = field(default_factory=dict)

    def lists(self, histories: Histories, k: int) -> Ints:
        """See Ranker."""
        n_items = self.similar.shape[0]
        widest = min(n_items, self.length * int(np.diff(self.similar.indptr).max(initial=1)))

        def rank(part: Histories) -> Ints:
            return best_of_sparse(
                recency(part, n_items, self.length, self.decay) @ self.similar, k
            )[0]

        return ranked(histories, k, widest, rank, self.popular)


def ranked(
    histories: Histories, k: int, width: int, rank: Callable[[Histories], Ints], popular: Ints
) -> Ints:
    """Lists [Q, k] of all queries; popular items fill short ones.

    rank: lists of a block of queries; a query scores `width` items.
    """
    lists = [rank(histories.part(first, last)) for first, last in blocks(len(histories), width)]
    return fill(np.concatenate([np.empty((0, k), dtype=np.int64), *lists]), popular)


def blocks(n: int, width: int) -> Iterator[tuple[int, int]]:
    """[first, last) over 0..n-1 such that last - first rows of `width` cells stay within CELLS."""
    step = max(1, CELLS // max(width, 1))
    return ((first, min(first + step, n)) for first in range(0, n, step))


def in_time_order(clicks: Clicks) -> Clicks:
    """Clicks from the oldest; equal times keep their order."""
    order = np.argsort(clicks.times_ms, kind="stable")
    return Clicks(clicks.users[order], clicks.items[order], clicks.times_ms[order], clicks.n_items)


def click_matrix(clicks: Clicks) -> Csr:
    """Number of clicks of each (user, item): CSR [users with a click, n_items], columns sorted."""
    names, users = np.unique(clicks.users, return_inverse=True)
    matrix = sparse.csr_matrix(
        (np.ones(len(users)), (users, clicks.items)), shape=(len(names), clicks.n_items)
    )
    matrix.sort_indices()
    return matrix


def distinct(matrix: Csr) -> Csr:
    """The same matrix with 1 for every entry."""
    return sparse.csr_matrix(
        (np.ones(len(matrix.data)), matrix.indices, matrix.indptr), shape=matrix.shape
    )


def recency(histories: Histories, n_items: int, length: int, decay: float) -> Csr:
    """decay**age of the newest `length` distinct items of each query: CSR [B, n_items].

    The newest item has age 0; a repeated item counts at its latest position.
    """
    key = histories.query * n_items + histories.items
    _, last = np.unique(key[::-1], return_index=True)
    latest = np.sort(len(key) - 1 - last)
    distinct_items = Histories.of(histories.query[latest], histories.items[latest], len(histories))
    newest = distinct_items.latest(length)
    age = np.repeat(newest.ptr[1:], newest.counts) - np.arange(len(newest.items)) - 1
    return sparse.csr_matrix(
        (decay**age, newest.items, newest.ptr), shape=(len(histories), n_items)
    )


def best(scores: Floats, k: int) -> Ints:
    """Columns of the k highest scores of each row, best first; ties go to the lower column.

    -1 for a score of -inf. [B, M] -> [B, k]
    """
    scores = np.pad(scores, ((0, 0), (0, max(0, k - scores.shape[1]))), constant_values=-np.inf)
    n = len(scores)
    least = np.partition(scores, -k, axis=1)[:, -k, None]  # [B, 1]
    above = scores > least
    equal = scores == least
    # np.partition alone would take any of the ties
    equal &= np.cumsum(equal, axis=1) <= k - above.sum(1, keepdims=True)
    columns = np.nonzero(above | equal)[1].reshape(n, k)
    values = np.take_along_axis(scores, columns, 1)
    order = np.argsort(-values, axis=1, kind="stable")
    return np.where(np.isneginf(values), -1, columns)[np.arange(n)[:, None], order]


def best_of_sparse(matrix: Csr, k: int) -> tuple[Ints, Floats]:
    """Columns and values [B, k] of the k highest entries above 0 of each row; see `best`.

    Values are 0 where the column is -1.
    """
    matrix.sort_indices()  # ties go to the lower column
    counts = np.diff(matrix.indptr)
    row = np.repeat(np.arange(matrix.shape[0]), counts)
    nth = np.arange(len(matrix.data)) - np.repeat(matrix.indptr[:-1], counts)
    values = np.full((matrix.shape[0], max(counts.max(initial=0), 1)), -np.inf)
    columns = np.full(values.shape, -1, dtype=np.int64)
    values[row, nth] = np.where(matrix.data > 0, matrix.data, -np.inf)
    columns[row, nth] = matrix.indices
    chosen = best(values, k)
    best_columns = np.take_along_axis(columns, chosen, 1)
    best_values = np.take_along_axis(values, chosen, 1)
    return np.where(chosen < 0, -1, best_columns), np.where(chosen < 0, 0.0, best_values)


def keep_best(rows: Csr, neighbours: int) -> Csr:
    """Only the `neighbours` highest entries of each row."""
    columns, values = best_of_sparse(rows, neighbours)
    kept = columns >= 0
    pointers = offsets(kept.sum(1))
    return sparse.csr_matrix((values[kept], columns[kept], pointers), shape=rows.shape)
