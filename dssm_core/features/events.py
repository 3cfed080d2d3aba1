"""Training events: which user took which item, and as of when their features are."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from dssm_core.features.interactions import Interactions

# Why an interaction is no training event.
BEFORE_FIRST_REFRESH = "before the first refresh, when nothing is known of any item"
UNKNOWN_ITEM = "with an item that was not known at the refresh before"
FIRST_OF_USER = "the first of its user, without a history"
ONLY_ONE = "the only one of its user, without another item as history"


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
    if times.tolist() == [log.start]:
        order, ptr = log.sequences()
        kept = torch.ones_like(log.user, dtype=torch.bool)
        kept[order[ptr[:-1][ptr.diff() > 0]]] = False
        return Events(
            log.user[kept], log.item[kept], torch.zeros_like(log.user)[kept], log.time[kept]
        )
    bucket, as_of = _refreshes(log, times)
    kept = (bucket >= 0) & (log.created[log.item] < as_of)
    return Events(log.user[kept], log.item[kept], bucket[kept], as_of[kept])


def left_out(log: Interactions, times: Tensor) -> dict[str, int]:
    """Number of interactions that are no training event with item activity, by reason.

    times: [buckets] ms, ascending.
    """
    bucket, as_of = _refreshes(log, times)
    early = bucket < 0
    unknown = ~early & (log.created[log.item] >= as_of)
    return {BEFORE_FIRST_REFRESH: int(early.sum()), UNKNOWN_ITEM: int(unknown.sum())}


def _refreshes(log: Interactions, times: Tensor) -> tuple[Tensor, Tensor]:
    """The latest refresh before each interaction: its number, -1 if there is none, and its time (of
    the first one if there is none). → 2 x [n].
    """
    bucket = torch.searchsorted(times, log.time, right=True) - 1
    return bucket, times[bucket.clamp(min=0)]
