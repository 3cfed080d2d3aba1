"""Bayesian personalised ranking: each positive above each candidate (Rendle et al. 2009)."""

from __future__ import annotations

from typing import ClassVar

from pydantic import BaseModel, ConfigDict
from torch import Tensor
from torch.nn.functional import softplus

from dssm_core.training.logits import BatchVectors, Logits


class Bpr(BaseModel):
    """-log sigmoid(positive - candidate); candidates that are the positive itself (-inf) add
    nothing.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    batch: ClassVar[None] = None
    whole_catalogue: ClassVar[bool] = False
    fixed_shapes: ClassVar[bool] = True
    on_scores: ClassVar[bool] = False
    ignores: ClassVar[tuple[str, ...]] = ()

    def __call__(self, batch: Logits) -> Tensor:
        """Mean over pairs. → []."""
        return batch.mean_of_pairs(softplus(batch.negative - batch.positive[:, None]))

    def fused(self, compared: BatchVectors) -> None:
        """This loss has no form without all logits."""
