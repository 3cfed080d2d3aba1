"""Softmax over the batch's own positives, with the sampler's candidates beside them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Self

from pydantic import model_validator

from dssm_core import families
from dssm_core.config import Config
from dssm_core.families import SAMPLERS
from dssm_core.sampling.samplers.in_batch import InBatch, Streaming
from dssm_core.training.losses.sampled_softmax import SampledSoftmax


class InBatchSoftmax(SampledSoftmax):
    """With sampler `in_batch` the in-batch softmax of Yi et al. 2019. With another sampler its
    candidates join those of the batch: mixed negative sampling (Yang et al. 2020).
    """

    streaming: Streaming | None = None
    """Take log-Q of the batch's items from the streaming estimate of their frequency; null takes
    exact counts."""

    @property
    def batch(self) -> InBatch:
        """The batch as a sampler."""
        return InBatch(streaming=self.streaming)

    @model_validator(mode="after")
    def _used(self) -> Self:
        if self.streaming and not self.log_q:
            raise ValueError(
                "loss.streaming says where log-Q comes from, but loss.log_q is false: set it to"
                " true or remove loss.streaming"
            )
        return self

    def problems(self, config: Config) -> Iterator[str]:
        """Settings that the sampler and the loss would both make for the batch."""
        yield from self.batch.problems(config)
        sampler = families.build(SAMPLERS, config.sampler)
        if sampler.from_batch and config.sampler.settings:
            yield (
                f"loss {config.loss.kind!r} brings the batch with settings of its own:"
                f" move those of sampler {config.sampler.kind!r} to loss"
            )
