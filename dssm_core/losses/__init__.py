"""Losses, by name. See docs/extending.md to add one."""

LOSSES = {
    "bce": "dssm_core.losses.bce:Bce",
    "in_batch_softmax": "dssm_core.losses.in_batch_softmax:InBatchSoftmax",
    "sampled_softmax": "dssm_core.losses.sampled_softmax:SampledSoftmax",
}
