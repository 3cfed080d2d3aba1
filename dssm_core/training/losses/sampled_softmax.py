"""Softmax over the positive and the sampled candidates: the DSSM loss (Huang et al. 2013)."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import torch
from pydantic import BaseModel, ConfigDict
from torch import Tensor

from dssm_core.training.fused_cross_entropy import softmax_cross_entropy
from dssm_core.training.logits import BatchVectors, Logits, importance_weighted

if TYPE_CHECKING:
    from dssm_core.sampling.samplers.in_batch import InBatch


class SampledSoftmax(BaseModel):
    """Cross-entropy of the positive against the sampler's candidates."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)
    whole_catalogue: ClassVar[bool] = False
    fixed_shapes: ClassVar[bool] = True
    on_scores: ClassVar[bool] = False
    ignores: ClassVar[tuple[str, ...]] = ()
    log_q: bool = True
    """Whether logits are corrected for how candidates were drawn."""

    @property
    def batch(self) -> InBatch | None:
        """None: only the sampler gives candidates."""
        return None

    def __call__(self, batch: Logits) -> Tensor:
        """Mean over events. → []."""
        return cross_entropy(importance_weighted(batch) if self.log_q else batch)

    def fused(self, compared: BatchVectors) -> Tensor:
        """See Loss. → []."""
        return softmax_cross_entropy(compared, compared.log_count_negative if self.log_q else None)


def cross_entropy(batch: Logits) -> Tensor:
    """-log of the positive's share of the softmax over itself and the candidates, mean over events.
    → [].
    """
    everything = torch.cat([batch.positive[:, None], batch.negative], dim=1)
    return batch.mean(everything.logsumexp(1) - batch.positive)
