"""Generalised binary cross-entropy: corrects the overconfidence caused by few negatives (gSASRec,
Petrov & Macdonald 2023).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, ClassVar

from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor
from torch.nn.functional import softplus

from dssm_core import families
from dssm_core.config import Config
from dssm_core.families import SAMPLERS
from dssm_core.training.logits import BatchVectors, Logits


class Gbce(BaseModel):
    """Binary cross-entropy with sigmoid(positive) ** beta as the likelihood of a positive. For
    uniform negatives only.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)
    batch: ClassVar[None] = None
    whole_catalogue: ClassVar[bool] = False
    fixed_shapes: ClassVar[bool] = True
    on_scores: ClassVar[bool] = False
    ignores: ClassVar[tuple[str, ...]] = ()
    calibration: Annotated[float, Field(ge=0, le=1)] = 0.75
    """0 is plain binary cross-entropy; 1 makes sigmoid(logit) a calibrated probability. The paper
    calls it t."""

    def beta(self, candidates: int, catalogue: int) -> float:
        """Weight of the positive, from the sampling rate alpha = candidates / all negatives."""
        alpha = min(1.0, candidates / max(1, catalogue - 1))
        return alpha * (self.calibration * (1 - 1 / alpha) + 1 / alpha)

    def __call__(self, batch: Logits) -> Tensor:
        """Mean over an event's pairs, mean over events. → []."""
        candidates = batch.negative.shape[1]
        positive = self.beta(candidates, batch.catalogue) * softplus(-batch.positive)
        return batch.mean((positive + softplus(batch.negative).sum(1)) / (candidates + 1))

    def fused(self, compared: BatchVectors) -> None:
        """This loss has no form without all logits."""

    def problems(self, config: Config) -> Iterator[str]:
        """Samplers that do not draw all their items alike."""
        if not families.build(SAMPLERS, config.sampler).even:
            yield (
                f"loss {config.loss.kind!r} is calibrated for uniform negatives, not for sampler"
                f" {config.sampler.kind!r}: take sampler 'uniform' or loss 'bce'"
            )
