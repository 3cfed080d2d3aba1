"""Matrix factorisation of implicit feedback by alternating least squares (Hu, Koren and Volinsky
2008), as the library `implicit` computes it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field
from threadpoolctl import threadpool_limits

from dssm_core.aliases import JSON, Ints
from dssm_core.evaluation.baselines.scores import Csr, Floats, best, click_matrix, ranked, recency
from dssm_core.features.histories import Histories
from dssm_core.features.popularity import Clicks, popular


class Als(BaseModel):
    """Factors of users and items by alternating least squares."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)
    needs_time: ClassVar[bool] = False
    ignores: ClassVar[tuple[str, ...]] = ()
    factors: Annotated[int, Field(ge=1)] = 128
    """Length of the factors."""
    regularization: Annotated[float, Field(gt=0)] = 0.1
    """Weight of the factors' norms."""
    alpha: Annotated[float, Field(gt=0)] = 3.0
    """Confidence of a click: 1 + alpha * clicks."""
    iterations: Annotated[int, Field(ge=1)] = 15
    """Number of passes over users and items."""
    history: Annotated[int, Field(ge=1)] = 20
    """Number of newest items from which a user's vector is solved."""
    decay: Annotated[float, Field(gt=0, le=1)] = 0.7
    """Weight of the a-th newest item: decay ** a of a click."""
    seed: int | None = None
    """Seed of the first factors; null follows the config's seed."""
    threads: Annotated[int, Field(ge=0)] = 0
    """Number of threads; 0 takes every core that OpenMP may use."""

    def variants(self, clicks: Clicks, as_of_ms: int) -> dict[str, Ints]:
        """None."""
        return {}

    def fit(self, clicks: Clicks, as_of_ms: int, seed: int = 0) -> Factors:
        """Item vectors from clicks before `as_of_ms`."""
        past = clicks.before(as_of_ms)
        per_user = click_matrix(past)
        with threadpool_limits(1, "blas"):  # implicit starts its own threads
            from implicit.cpu.als import AlternatingLeastSquares

            model = AlternatingLeastSquares(
                self.factors,
                self.regularization,
                iterations=self.iterations,
                random_state=seed if self.seed is None else self.seed,
                num_threads=self.threads,
            )
            if per_user.nnz:
                model.fit(self.confidence(per_user), show_progress=False)
        return Factors(model, self, past.counts() > 0, popular(past))

    def confidence(self, clicks: Csr) -> Csr:
        """1 + alpha * clicks of each pair that has a click."""
        confidence = clicks.astype(np.float32)
        confidence.data = 1 + self.alpha * confidence.data
        return confidence


@dataclass(frozen=True)
class Factors:
    """Item vectors; the vector of a user is the least-squares solution for the user's history.

    clicked [N] bool: items that were fitted.
    """

    model: Any
    settings: Als
    clicked: npt.NDArray[np.bool_]
    popular: Ints
    info: JSON = field(default_factory=dict)

    def lists(self, histories: Histories, k: int) -> Ints:
        """See Ranker."""
        n = len(self.clicked)
        if not self.clicked.any():
            return np.full((len(histories), k), -1)

        def rank(part: Histories) -> Ints:
            past = recency(part, n, self.settings.history, self.settings.decay)
            scores = self._scores(past)
            scores[:, ~self.clicked] = -np.inf
            scores[np.diff(past.indptr) == 0] = -np.inf  # no history: popular items follow
            return best(scores, k)

        return ranked(histories, k, n, rank, self.popular)

    def _scores(self, past: Csr) -> Floats:
        """[B, N]"""
        with threadpool_limits(1, "blas"):
            users = self.model.recalculate_user(
                np.arange(past.shape[0]), self.settings.confidence(past)
            )
            scores: Floats = users @ self.model.item_factors.T
        return scores
