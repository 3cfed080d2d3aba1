"""Binary cross-entropy over single pairs of user and item."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from pydantic import BaseModel, ConfigDict
from torch import Tensor
from torch.nn.functional import softplus

from dssm_core import families
from dssm_core.config import Config
from dssm_core.families import SAMPLERS
from dssm_core.training.logits import BatchVectors, Logits, noise_contrastive


class Bce(BaseModel):
    """Each click against each candidate as a pair of its own."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)
    batch: ClassVar[None] = None
    whole_catalogue: ClassVar[bool] = False
    fixed_shapes: ClassVar[bool] = True
    on_scores: ClassVar[bool] = False
    ignores: ClassVar[tuple[str, ...]] = ()
    log_q: bool = True
    """Whether logits are corrected for how candidates were drawn (noise-contrastive estimation), so
    that popular candidates are not pushed too far."""

    def __call__(self, batch: Logits) -> Tensor:
        """Sum over an event's pairs, mean over events. → []."""
        batch = noise_contrastive(batch) if self.log_q else batch
        return batch.mean(softplus(-batch.positive) + softplus(batch.negative).sum(1))

    def fused(self, compared: BatchVectors) -> None:
        """This loss has no form without all logits."""

    def problems(self, config: Config) -> Iterator[str]:
        """log-Q of positives that the sampler never draws."""
        if self.log_q and not families.build(SAMPLERS, config.sampler).draws_positives:
            yield (
                f"loss {config.loss.kind!r} corrects a positive by how often sampler"
                f" {config.sampler.kind!r} draws it, which is never: set loss.log_q to false"
            )
