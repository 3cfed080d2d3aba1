"""EASE: a linear model of each item given all others, in closed form (Steck 2019,
arXiv:1905.03375).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, ClassVar

import numpy as np
from pydantic import BaseModel, ConfigDict, Field
from scipy import linalg

from dssm_core.aliases import JSON, Ints
from dssm_core.errors import DataError
from dssm_core.evaluation.baselines.scores import (
    Floats,
    best,
    click_matrix,
    distinct,
    ranked,
    recency,
)
from dssm_core.features.histories import Histories
from dssm_core.features.popularity import Clicks, popular

GIB = 2**30


class Ease(BaseModel):
    """A linear item-to-item model with a closed form."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)
    needs_time: ClassVar[bool] = False
    ignores: ClassVar[tuple[str, ...]] = ()
    regularization: Annotated[float, Field(gt=0)] = 500.0
    """Lambda of the paper."""
    max_gib: Annotated[float, Field(gt=0)] = 2.0
    """Largest matrix of (clicked items) squared that is accepted, in GiB; three of them are in
    memory at once."""
    history: Annotated[int, Field(ge=1)] = 20
    """Number of a user's newest items that are looked up."""
    decay: Annotated[float, Field(gt=0, le=1)] = 0.7
    """Weight of the a-th newest item: decay ** a."""

    def variants(self, clicks: Clicks, as_of_ms: int) -> dict[str, Ints]:
        """None."""
        return {}

    def fit(self, clicks: Clicks, as_of_ms: int, seed: int = 0) -> LinearWeights:
        """Weights from clicks before `as_of_ms`; DataError where they do not fit in `max_gib`."""
        past = clicks.before(as_of_ms)
        items = np.flatnonzero(past.counts())
        self._check_size(len(items))
        per_user = distinct(click_matrix(past))[:, items]
        gram = (per_user.T @ per_user).toarray()
        gram[np.diag_indices(len(items))] += self.regularization
        weights = (
            linalg.inv(gram, overwrite_a=True, check_finite=False, assume_a="pos")
            if len(items)
            else gram
        )
        weights /= -np.diag(weights).copy()
        np.fill_diagonal(weights, 0)
        return LinearWeights(
            weights, items, clicks.n_items, self.history, self.decay, popular(past)
        )

    def _check_size(self, n: int) -> None:
        needed = n * n * 8 / GIB
        if needed > self.max_gib:
            raise DataError(
                f"baseline ease needs {needed:.1f} GiB for each matrix of {n:,} x {n:,} items, and "
                f"max_gib is {self.max_gib:g}: raise max_gib if three such matrices fit in memory, "
                "or use itemcf"
            )


@dataclass(frozen=True)
class LinearWeights:
    """weights [n, n]: from an item of the history to each item; items [n]: rows with a click."""

    weights: Floats
    items: Ints
    n_items: int
    length: int
    decay: float
    popular: Ints
    info: JSON = field(default_factory=dict)

    def lists(self, histories: Histories, k: int) -> Ints:
        """See Ranker."""
        names = np.append(self.items, -1)  # its row -1 stays -1

        def rank(part: Histories) -> Ints:
            past = recency(part, self.n_items, self.length, self.decay)[:, self.items]
            scores = past @ self.weights  # [b, n]
            scores[np.diff(past.indptr) == 0] = -np.inf  # no history: popular items follow
            return names[best(scores, k)]

        return ranked(histories, k, len(self.items), rank, self.popular)
