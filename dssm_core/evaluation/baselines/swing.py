"""Swing: two items are alike when pairs of users share them who share little else (Yang et al.
2020, arXiv:2010.05525).
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Annotated, Any, ClassVar

import numpy as np
from pydantic import BaseModel, ConfigDict, Field
from scipy import sparse

from dssm_core.aliases import Ints
from dssm_core.evaluation.baselines.scores import CELLS, Csr, Neighbours, click_matrix, keep_best
from dssm_core.features.popularity import Clicks, popular


class Swing(BaseModel):
    """Similarity of i and j: the sum over pairs of users u, v of both of w_u * w_v / (alpha + items
    that u and v share).

    w_u = 1 / sqrt(items of u). users_per_item: at most so many of an item's users, drawn by `seed`,
    make its pairs, which
    bounds the cost: it grows with the square. neighbours, history, decay: as for `itemcf`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    needs_time: ClassVar[bool] = False
    ignores: ClassVar[tuple[str, ...]] = ()
    alpha: Annotated[float, Field(ge=0)] = 1.0
    users_per_item: Annotated[int, Field(ge=2)] = 100
    seed: int = 0
    neighbours: Annotated[int, Field(ge=1)] = 200
    history: Annotated[int, Field(ge=1)] = 20
    decay: Annotated[float, Field(gt=0, le=1)] = 0.7

    def variants(self, clicks: Clicks, as_of_ms: int) -> dict[str, Ints]:
        """None."""
        return {}

    def fit(self, clicks: Clicks, as_of_ms: int) -> Neighbours:
        """Similarities from clicks before `as_of_ms`."""
        known = clicks.between(0, as_of_ms)
        per_user = click_matrix(known)
        starts, users = sample_users(per_user, self.users_per_item, self.seed)
        weights = 1 / np.sqrt(np.maximum(np.diff(per_user.indptr), 1))
        pairs, n = _kernel(), known.n_items

        def similar(first: int) -> Csr:
            rows = np.zeros((min(step, n - first), n))
            pairs(
                per_user.indptr, per_user.indices, weights, starts, users, self.alpha, first, rows
            )
            return keep_best(sparse.csr_matrix(rows), self.neighbours)

        workers = os.cpu_count() or 1
        step = max(1, min(256, CELLS // max(n, 1)))
        with ThreadPoolExecutor(
            workers
        ) as pool:  # blocks are apart, so their order and number change no digit
            parts = [sparse.csr_matrix((0, n)), *pool.map(similar, range(0, n, step))]
        return Neighbours(
            sparse.vstack(parts, format="csr"), self.history, self.decay, popular(known)
        )


def sample_users(per_user: Csr, most: int, seed: int) -> tuple[Ints, Ints]:
    """Of each item's users (rows of `per_user`) at most `most` at random: where an item's begin [N
    + 1], and the users.
    """
    users, items = per_user.nonzero()
    order = np.lexsort((np.random.default_rng(seed).random(len(items)), items))
    counts = np.bincount(items, minlength=per_user.shape[1])
    place = np.arange(len(order)) - np.repeat(np.cumsum(counts) - counts, counts)
    starts = np.concatenate([[0], np.cumsum(np.minimum(counts, most))])
    return starts.astype(np.int64), users[order][place < most].astype(np.int64)


@cache
def _kernel() -> Callable[..., None]:
    """Compiled at the first use: about a second."""
    from numba import njit

    compiled: Callable[..., None] = njit(nogil=True)(_add_pairs)
    return compiled


def _add_pairs(
    pointers: Any,
    items: Any,
    weights: Any,
    starts: Any,
    users: Any,
    alpha: float,
    first: int,
    out: Any,
) -> None:
    """Add to out[i - first] the similarities of item i, for each row of `out`."""
    shared = np.zeros(out.shape[1], dtype=np.bool_)
    both = np.zeros(
        out.shape[1], dtype=np.int64
    )  # items of u and v; the place after the last is written in vain
    for row in range(out.shape[0]):
        begin, end = starts[first + row], starts[first + row + 1]
        for left in range(begin, end):
            u = users[left]
            mine = items[pointers[u] : pointers[u + 1]]
            for item in mine:
                shared[item] = True
            for right in range(left + 1, end):
                v = users[right]
                common = 0
                for item in items[pointers[v] : pointers[v + 1]]:
                    both[common] = item
                    common += shared[item]
                    if common == len(mine):
                        break
                weight = weights[u] * weights[v] / (alpha + common)
                for place in range(common):
                    out[row, both[place]] += weight
            for item in mine:
                shared[item] = False
        out[row, first + row] = 0
