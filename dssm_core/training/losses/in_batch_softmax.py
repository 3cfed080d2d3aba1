"""Softmax over the batch's own positives, with the sampler's candidates beside them."""

from __future__ import annotations

from typing import ClassVar, Self

from pydantic import model_validator

from dssm_core.sampling.samplers.in_batch import InBatch, Streaming
from dssm_core.training.losses.sampled_softmax import SampledSoftmax


class InBatchSoftmax(SampledSoftmax):
    """With `sampler: in_batch` the in-batch softmax of Yi et al. 2019; with another sampler its
    candidates join the batch's: mixed negative sampling (Yang et al. 2020).

    streaming: log-Q of the batch's items from the streaming frequency estimate; left out: from
    exact counts.
    """

    in_batch: ClassVar[bool] = True
    streaming: Streaming | None = None

    @property
    def batch(self) -> InBatch:
        """The batch as a sampler."""
        return InBatch(streaming=self.streaming)

    @model_validator(mode="after")
    def _used(self) -> Self:
        if self.streaming and not self.log_q:
            raise ValueError(
                "loss.streaming says where log-Q comes from, but loss.log_q is false: set it to true or remove loss.streaming"
            )
        return self
