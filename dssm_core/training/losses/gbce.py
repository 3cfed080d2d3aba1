"""Generalised binary cross-entropy: undoes the overconfidence that few negatives give (gSASRec,
Petrov & Macdonald 2023).
"""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor
from torch.nn.functional import softplus

from dssm_core.training.logits import Logits


class Gbce(BaseModel):
    """Positives count `beta` times: sigmoid(positive) ** beta is their likelihood. For uniform
    negatives only.

    calibration: t; 0 is plain binary cross-entropy, 1 makes sigmoid(logit) a calibrated
    probability.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    in_batch: ClassVar[bool] = False
    whole_catalogue: ClassVar[bool] = False
    on_scores: ClassVar[bool] = False
    calibration: Annotated[float, Field(ge=0, le=1)] = 0.75

    def beta(self, candidates: int, catalogue: int) -> float:
        """Weight of the positive, from the sampling rate alpha = candidates / negatives there are."""
        alpha = min(1.0, candidates / max(1, catalogue - 1))
        return alpha * (self.calibration * (1 - 1 / alpha) + 1 / alpha)

    def __call__(self, batch: Logits) -> Tensor:
        """Mean over an event's pairs, mean over events. → []."""
        candidates = batch.negative.shape[1]
        positive = self.beta(candidates, batch.catalogue) * softplus(-batch.positive)
        return ((positive + softplus(batch.negative).sum(1)) / (candidates + 1)).mean()
