"""Training events: which user took which item, and as of when their features are."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from dssm_core.features.interactions import Interactions


@dataclass(frozen=True)
class Events:
    """Training events, all [n].

    bucket: index of the refresh that the event belongs to. as_of: ms, the time of the user's
    history and of the item activity.
    """

    user: Tensor
    item: Tensor
    bucket: Tensor
    as_of: Tensor


def training_events(log: Interactions, times: Tensor) -> Events:
    """Events after the first refresh whose item was known at their refresh, because a served index
    has no other items.

    times: [buckets] ms, ascending. If activity is disabled it is the start of the log only, and the
    events are all but the first of each user.
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
