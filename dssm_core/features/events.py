"""Training events: who took what, and what was known then."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from dssm_core.features.interactions import Interactions


@dataclass(frozen=True)
class Events:
    """What is learned from: who took what, and what was known then. All [n].

    bucket: the refresh an event belongs to; as_of: ms, when its user's history and its items'
    activity are taken.
    """

    user: Tensor
    item: Tensor
    bucket: Tensor
    as_of: Tensor


def training_events(log: Interactions, times: Tensor) -> Events:
    """Events after the first refresh whose item was known at their refresh: a served index holds no
    other.

    times: [buckets] ms, ascending; the log's start alone where activity is off: then every event
    but a user's first.
    """
    bucket = torch.searchsorted(times, log.time, right=True) - 1
    if times.tolist() == [log.start]:
        order, ptr = log.sequences()
        kept = torch.ones_like(bucket, dtype=torch.bool)
        kept[order[ptr[:-1][ptr.diff() > 0]]] = False
        return Events(
            log.user[kept], log.item[kept], torch.zeros_like(bucket)[kept], log.time[kept]
        )
    as_of = times[bucket.clamp(min=0)]
    kept = (bucket >= 0) & (log.created[log.item] < as_of)
    return Events(log.user[kept], log.item[kept], bucket[kept], as_of[kept])
