"""Item-based collaborative filtering: items are similar if the same users click them, or click them
close to each other.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, model_validator
from scipy import sparse

from dssm_core.aliases import Ints
from dssm_core.evaluation.baselines.scores import (
    Csr,
    Floats,
    Neighbours,
    blocks,
    click_matrix,
    distinct,
    in_time_order,
    keep_best,
)
from dssm_core.features.popularity import Clicks, popular

MINUTE_MS = 60_000


class ItemCf(BaseModel):
    """Similarity of items i and j: the weights of their common users, divided by
    n_i**0.5 * n_j**`popularity` (n: number of users; 0.5 gives the cosine).

    weighting: a common user weighs 1 (`cosine`), or 1 / log(1 + number of its items) (`iuf`, the
    inverse user frequency of Breese et al. 1998).
    window: None takes the items of a user as one set. A number counts only pairs of clicks at most
    that many positions apart in the user's sequence; a pair weighs distance_decay**(distance - 1).
    directed: only j after i. max_gap_min: only clicks at most that many minutes apart, which keeps
    pairs within a session.
    neighbours: number of similar items that are kept for each item. history: number of newest items
    that are scored; the a-th newest weighs decay**a.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    needs_time: ClassVar[bool] = False
    ignores: ClassVar[tuple[str, ...]] = ()
    weighting: Literal["cosine", "iuf"] = "iuf"
    popularity: Annotated[float, Field(ge=0, le=1)] = 0.5
    window: Annotated[int, Field(ge=1)] | None = None
    distance_decay: Annotated[float, Field(gt=0, le=1)] = 1.0
    directed: bool = False
    max_gap_min: Annotated[float, Field(gt=0)] | None = None
    neighbours: Annotated[int, Field(ge=1)] = 200
    history: Annotated[int, Field(ge=1)] = 20
    decay: Annotated[float, Field(gt=0, le=1)] = 0.7

    @model_validator(mode="after")
    def _pairs_need_a_window(self) -> ItemCf:
        of_pairs = {"distance_decay", "directed", "max_gap_min"} & self.model_fields_set
        if self.window is None and of_pairs:
            raise ValueError(
                f"{', '.join(sorted(of_pairs))} needs window: set it too, such as window: 5"
            )
        return self

    def variants(self, clicks: Clicks, as_of_ms: int) -> dict[str, Ints]:
        """None."""
        return {}

    def fit(self, clicks: Clicks, as_of_ms: int, seed: int = 0) -> Neighbours:
        """Similarities from clicks before `as_of_ms`."""
        past = in_time_order(clicks.between(0, as_of_ms))
        per_user = distinct(click_matrix(past))
        users = self._user_weights(per_user)
        by_item = per_user.T.tocsr()
        weighted = (sparse.diags(users) @ per_user).tocsr()
        pairs = None if self.window is None else self._close_pairs(past, users)
        count = np.maximum(per_user.sum(0).A1, 1)
        parts = [sparse.csr_matrix((0, past.n_items))]
        for first, last in blocks(past.n_items, past.n_items):
            rows = by_item[first:last] @ weighted if pairs is None else pairs[first:last]
            similar = (
                sparse.diags(count[first:last] ** -0.5)
                @ rows
                @ sparse.diags(count**-self.popularity)
            )
            parts.append(keep_best(_without_itself(similar.tocsr(), first), self.neighbours))
        return Neighbours(
            sparse.vstack(parts, format="csr"), self.history, self.decay, popular(past)
        )

    def _user_weights(self, per_user: Csr) -> Floats:
        """The weight of each user: [U]."""
        items = np.diff(per_user.indptr)
        return 1 / np.log1p(items) if self.weighting == "iuf" else np.ones(len(items))

    def _close_pairs(self, clicks: Clicks, users: Floats) -> Csr:
        """Summed weights of each click and a later click of the same user within the window: CSR
        [N, N], in both directions unless `directed`.
        """
        assert self.window is not None
        _, codes = np.unique(clicks.users, return_inverse=True)
        order = np.argsort(codes, kind="stable")
        user = codes[order]
        item = clicks.items[order]
        time = clicks.times_ms[order]
        total = sparse.csr_matrix((clicks.n_items, clicks.n_items))
        for distance in range(1, min(self.window, len(item) - 1) + 1):
            near = user[distance:] == user[:-distance]
            if self.max_gap_min is not None:
                near &= time[distance:] - time[:-distance] <= self.max_gap_min * MINUTE_MS
            weight = users[user[distance:][near]] * self.distance_decay ** (distance - 1)
            total += sparse.csr_matrix(
                (weight, (item[:-distance][near], item[distance:][near])), shape=total.shape
            )
        return total if self.directed else (total + total.T).tocsr()


def _without_itself(rows: Csr, first: int) -> Csr:
    """Remove each item from its own neighbours; row i of the block is item first + i."""
    row = np.repeat(np.arange(rows.shape[0]) + first, np.diff(rows.indptr))
    rows.data[row == rows.indices] = 0
    return rows
