"""Softmax over the batch's own positives, with the sampler's candidates beside them."""

from __future__ import annotations

from typing import ClassVar

from dssm_core.losses.sampled_softmax import SampledSoftmax


class InBatchSoftmax(SampledSoftmax):
    """With `sampler: in_batch` the in-batch softmax of Yi et al. 2019; with another sampler its candidates join
    the batch's: mixed negative sampling (Yang et al. 2020).
    """

    in_batch: ClassVar[bool] = True
