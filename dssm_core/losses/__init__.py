"""Losses, by name. See docs/extending.md to add one."""

LOSSES = {
    "bce": "dssm_core.losses.bce:Bce",
    "bpr": "dssm_core.losses.bpr:Bpr",
    "ccl": "dssm_core.losses.ccl:Ccl",
    "full_softmax": "dssm_core.losses.full_softmax:FullSoftmax",
    "gbce": "dssm_core.losses.gbce:Gbce",
    "in_batch_softmax": "dssm_core.losses.in_batch_softmax:InBatchSoftmax",
    "sampled_softmax": "dssm_core.losses.sampled_softmax:SampledSoftmax",
    "triplet": "dssm_core.losses.triplet:Triplet",
}
