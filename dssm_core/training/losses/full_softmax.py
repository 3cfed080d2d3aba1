"""Cross-entropy over the whole catalogue; without draws, no log-Q correction is needed."""

from __future__ import annotations

from typing import ClassVar

from pydantic import BaseModel, ConfigDict
from torch import Tensor

from dssm_core.training.full_cross_entropy import full_cross_entropy
from dssm_core.training.logits import BatchVectors, Logits
from dssm_core.training.losses.sampled_softmax import cross_entropy


class FullSoftmax(BaseModel):
    """What the sampled softmax estimates, exactly; costs batch times items. For SASRec: Klenitskiy
    & Vasilev 2023.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    batch: ClassVar[None] = None
    whole_catalogue: ClassVar[bool] = True
    fixed_shapes: ClassVar[bool] = True
    on_scores: ClassVar[bool] = False
    ignores: ClassVar[tuple[str, ...]] = ("train.negatives",)

    def __call__(self, batch: Logits) -> Tensor:
        """Mean over events. → []."""
        return cross_entropy(batch)

    def fused(self, compared: BatchVectors) -> Tensor:
        """See Loss. → []."""
        return full_cross_entropy(compared)
