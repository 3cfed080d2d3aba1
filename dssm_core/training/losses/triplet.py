"""Triplet loss: each positive closer than each candidate by a margin (Schroff et al. 2015; for
retrieval, Huang et al. 2020).
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from dssm_core.training.logits import Logits


class Triplet(BaseModel):
    """margin: in cosines. over: every candidate of an event, or only the `hardest`, which is the
    most similar one.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    in_batch: ClassVar[bool] = False
    whole_catalogue: ClassVar[bool] = False
    on_scores: ClassVar[bool] = True
    margin: Annotated[float, Field(gt=0, le=2)] = 0.3
    over: Literal["all", "hardest"] = "all"

    def __call__(self, batch: Logits) -> Tensor:
        """Mean over triplets. → []."""
        negative = (
            batch.negative.amax(1, keepdim=True) if self.over == "hardest" else batch.negative
        )
        return (self.margin - batch.positive[:, None] + negative).relu().mean()
