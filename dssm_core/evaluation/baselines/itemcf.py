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
    """Item-to-item collaborative filtering. The similarity of i and j is the sum of their common
    users' weights, over n_i ** 0.5 * n_j ** `popularity` (n: number of users).
    """

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)
    needs_time: ClassVar[bool] = False
    ignores: ClassVar[tuple[str, ...]] = ()
    weighting: Literal["cosine", "iuf"] = "iuf"
    """A common user counts 1 (`cosine`), or 1 / log(1 + the user's items) (`iuf`, the inverse user
    frequency of Breese et al. 1998)."""
    popularity: Annotated[float, Field(ge=0, le=1)] = 0.5
    """Exponent of the other item's number of users in the similarity; 0.5 is the cosine."""
    window: Annotated[int, Field(ge=1)] | None = None
    """Only pairs of clicks at most this many positions apart count; null counts a user's items as
    one set."""
    distance_decay: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Weight of a pair of clicks: distance_decay ** (distance - 1), the distance in positions."""
    directed: bool = False
    """Whether only the later item of a pair is a neighbour of the earlier one."""
    max_gap_min: Annotated[float, Field(gt=0)] | None = None
    """Only pairs of clicks at most this many minutes apart count; null has no limit."""
    neighbours: Annotated[int, Field(ge=1)] = 200
    """Number of neighbours that are kept for each item."""
    history: Annotated[int, Field(ge=1)] = 20
    """Number of a user's newest items that are looked up."""
    decay: Annotated[float, Field(gt=0, le=1)] = 0.7
    """Weight of the a-th newest item: decay ** a."""

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
        past = in_time_order(clicks.before(as_of_ms))
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
