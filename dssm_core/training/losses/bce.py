"""Binary cross-entropy: each pair of user and item on its own."""

from __future__ import annotations

from typing import ClassVar

from pydantic import BaseModel, ConfigDict
from torch import Tensor
from torch.nn.functional import softplus

from dssm_core.training.logits import Logits, noise_contrastive


class Bce(BaseModel):
    """Clicks against candidates. log_q: noise-contrastive estimation, so that popular candidates
    are not pushed too far.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    in_batch: ClassVar[bool] = False
    whole_catalogue: ClassVar[bool] = False
    on_scores: ClassVar[bool] = False
    log_q: bool = True

    def __call__(self, batch: Logits) -> Tensor:
        """Sum over an event's pairs, mean over events. → []."""
        batch = noise_contrastive(batch) if self.log_q else batch
        return (softplus(-batch.positive) + softplus(batch.negative).sum(1)).mean()
