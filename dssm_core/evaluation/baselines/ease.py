"""EASE: a linear model of each item by all others, in closed form (Steck 2019, arXiv:1905.03375)."""

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
    """`regularization`: lambda of the paper. max_gib: of one matrix of clicked items squared; three
    are alive at once.

    history: newest items that are asked about, the a-th newest weighing decay**a.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    needs_time: ClassVar[bool] = False
    ignores: ClassVar[tuple[str, ...]] = ()
    regularization: Annotated[float, Field(gt=0)] = 500.0
    max_gib: Annotated[float, Field(gt=0)] = 2.0
    history: Annotated[int, Field(ge=1)] = 20
    decay: Annotated[float, Field(gt=0, le=1)] = 0.7

    def variants(self, clicks: Clicks, as_of_ms: int) -> dict[str, Ints]:
        """None."""
        return {}

    def fit(self, clicks: Clicks, as_of_ms: int) -> Linear:
        """Weights from clicks before `as_of_ms`; DataError where they would not fit in `max_gib`."""
        known = clicks.between(0, as_of_ms)
        items = np.flatnonzero(known.counts())
        self._check_size(len(items))
        per_user = distinct(click_matrix(known))[:, items]
        gram = (per_user.T @ per_user).toarray()
        gram[np.diag_indices(len(items))] += self.regularization
        weights = (
            linalg.inv(gram, overwrite_a=True, check_finite=False, assume_a="pos")
            if len(items)
            else gram
        )
        weights /= -np.diag(weights).copy()
        np.fill_diagonal(weights, 0)
        return Linear(weights, items, clicks.n_items, self.history, self.decay, popular(known))

    def _check_size(self, n: int) -> None:
        needed = n * n * 8 / GIB
        if needed > self.max_gib:
            raise DataError(
                f"baseline ease needs {needed:.1f} GiB a matrix for {n:,} items squared and may take {self.max_gib:g}: "
                "set its max_gib higher where three such fit in memory, or take itemcf"
            )


@dataclass(frozen=True)
class Linear:
    """weights [n, n] from item of the history to item; items [n]: the catalogue's rows that were
    clicked.
    """

    weights: Floats
    items: Ints
    n_items: int
    length: int
    decay: float
    popular: Ints
    info: JSON = field(default_factory=dict)

    def lists(self, histories: Histories, k: int) -> Ints:
        """See Fitted."""
        names = np.append(self.items, -1)  # its row -1 stays -1

        def rank(part: Histories) -> Ints:
            past = recency(part, self.n_items, self.length, self.decay)[:, self.items]
            scores = past @ self.weights  # [b, n]
            scores[np.diff(past.indptr) == 0] = -np.inf  # nothing to go by: the popular ones
            return names[best(scores, k)]

        return ranked(histories, k, len(self.items), rank, self.popular)
