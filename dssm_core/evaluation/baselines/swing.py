"""Swing: two items are similar if pairs of users who share few other items share them (Yang et al.
2020, arXiv:2010.05525).
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Annotated, Any, ClassVar

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field
from scipy import sparse

from dssm_core.aliases import Ints
from dssm_core.evaluation.baselines.scores import CELLS, Csr, Neighbours, click_matrix, keep_best
from dssm_core.features.popularity import Clicks, popular
from dssm_core.features.ragged import offsets, positions


class Swing(BaseModel):
    """Swing similarity of i and j: the sum over pairs of users u, v of both items of w_u * w_v /
    (`alpha` + number of items that u and v share), with w_u = 1 / sqrt(items of u).
    """

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)
    needs_time: ClassVar[bool] = False
    ignores: ClassVar[tuple[str, ...]] = ()
    alpha: Annotated[float, Field(ge=0)] = 1.0
    """Smoothing: a pair of users counts 1 / (alpha + the items that they share)."""
    users_per_item: Annotated[int, Field(ge=2)] = 100
    """Number of an item's users, drawn by `seed`, that make its pairs. It bounds the cost, which
    grows with its square."""
    seed: int | None = None
    """Seed of the draw; null follows the config's seed."""
    neighbours: Annotated[int, Field(ge=1)] = 200
    """Number of neighbours that are kept for each item."""
    history: Annotated[int, Field(ge=1)] = 20
    """Number of a user's newest items that are looked up."""
    decay: Annotated[float, Field(gt=0, le=1)] = 0.7
    """Weight of the a-th newest item: decay ** a."""

    def variants(self, clicks: Clicks, as_of_ms: int) -> dict[str, Ints]:
        """None."""
        return {}

    def fit(self, clicks: Clicks, as_of_ms: int, seed: int = 0) -> Neighbours:
        """Similarities from clicks before `as_of_ms`."""
        past = clicks.before(as_of_ms)
        per_user = click_matrix(past)
        own = seed if self.seed is None else self.seed
        starts, users = sample_users(per_user, self.users_per_item, own)
        weights = 1 / np.sqrt(np.maximum(np.diff(per_user.indptr), 1))
        pairs = _kernel()
        n = past.n_items

        def similar(first: int) -> Csr:
            rows = np.zeros((min(step, n - first), n))
            pairs(
                per_user.indptr, per_user.indices, weights, starts, users, self.alpha, first, rows
            )
            return keep_best(sparse.csr_matrix(rows), self.neighbours)

        step = max(1, min(256, CELLS // max(n, 1)))
        # blocks are independent: their number and order do not change the result
        with ThreadPoolExecutor(torch.get_num_threads()) as pool:
            parts = [sparse.csr_matrix((0, n)), *pool.map(similar, range(0, n, step))]
        return Neighbours(
            sparse.vstack(parts, format="csr"), self.history, self.decay, popular(past)
        )


def sample_users(per_user: Csr, most: int, seed: int) -> tuple[Ints, Ints]:
    """At most `most` random users (rows of `per_user`) of each item.

    Returns where the users of each item begin [N + 1], and the users.
    """
    users, items = per_user.nonzero()
    order = np.lexsort((np.random.default_rng(seed).random(len(items)), items))
    counts = np.bincount(items, minlength=per_user.shape[1])
    starts = offsets(np.minimum(counts, most))
    return starts, users[order][positions(counts) < most].astype(np.int64)


@cache
def _kernel() -> Callable[..., None]:
    """The compiled `_add_pairs`; the first call takes about a second."""
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
    # items of u and v; the entry after the last one is overwritten
    both = np.zeros(out.shape[1], dtype=np.int64)
    for row in range(out.shape[0]):
        begin = starts[first + row]
        end = starts[first + row + 1]
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
                for nth in range(common):
                    out[row, both[nth]] += weight
            for item in mine:
                shared[item] = False
        out[row, first + row] = 0
