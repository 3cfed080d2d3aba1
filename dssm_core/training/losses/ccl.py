"""Cosine contrastive loss, the loss of SimpleX (Mao et al. 2021)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, ClassVar

from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from dssm_core.config import Config
from dssm_core.training.logits import BatchVectors, Logits


class Ccl(BaseModel):
    """Positives are pulled toward cosine 1; candidates above `margin` are pushed down to it."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)
    batch: ClassVar[None] = None
    whole_catalogue: ClassVar[bool] = False
    fixed_shapes: ClassVar[bool] = True
    on_scores: ClassVar[bool] = True
    ignores: ClassVar[tuple[str, ...]] = ("model.temperature", "model.learn_temperature")
    margin: Annotated[float, Field(ge=-1, lt=1)] = 0.4
    """Cosine below which a candidate is ignored."""
    negative_weight: Annotated[float, Field(gt=0)] = 50.0
    """Weight of the mean over an event's candidates, beside its one positive."""

    def __call__(self, batch: Logits) -> Tensor:
        """Mean over events. → []."""
        negative = batch.mean_of_candidates((batch.negative - self.margin).relu())
        return batch.mean(1 - batch.positive + self.negative_weight * negative)

    def fused(self, compared: BatchVectors) -> None:
        """This loss has no form without all logits."""

    def problems(self, config: Config) -> Iterator[str]:
        """Dot products, in which a margin has no scale."""
        if config.model.similarity == "dot":
            yield (
                f"loss {config.loss.kind!r} has its margin in cosines:"
                " set model.similarity to cosine"
            )
