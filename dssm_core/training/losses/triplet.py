"""Triplet loss: each positive closer than each candidate by a margin (Schroff et al. 2015; for
retrieval, Huang et al. 2020).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from dssm_core.config import Config
from dssm_core.training.logits import BatchVectors, Logits


class Triplet(BaseModel):
    """Each positive must be closer than each candidate by a margin."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)
    batch: ClassVar[None] = None
    whole_catalogue: ClassVar[bool] = False
    fixed_shapes: ClassVar[bool] = True
    on_scores: ClassVar[bool] = True
    ignores: ClassVar[tuple[str, ...]] = ("model.temperature", "model.learn_temperature")
    margin: Annotated[float, Field(gt=0, le=2)] = 0.3
    """The margin, in cosines."""
    over: Literal["all", "hardest"] = "all"
    """Whether all candidates of an event count, or only the `hardest` (the most similar one)."""

    def __call__(self, batch: Logits) -> Tensor:
        """Mean over triplets. → []."""
        least = self.margin - batch.positive
        if self.over == "hardest":
            return batch.mean((least + batch.negative.amax(1)).relu())
        return batch.mean_of_pairs((least[:, None] + batch.negative).relu())

    def fused(self, compared: BatchVectors) -> None:
        """This loss has no form without all logits."""

    def problems(self, config: Config) -> Iterator[str]:
        """Dot products, in which a margin has no scale."""
        if config.model.similarity == "dot":
            yield (
                f"loss {config.loss.kind!r} has its margin in cosines:"
                " set model.similarity to cosine"
            )
