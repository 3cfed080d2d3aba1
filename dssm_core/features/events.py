"""Training events: which user took which item, and as of when their features are."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Self

import torch
from torch import Tensor

from dssm_core.features.interactions import Interactions

# Why an interaction is no training event.
BEFORE_FIRST_REFRESH = "before the first refresh, when nothing is known of any item"
UNKNOWN_ITEM = "with an item that was not known at the refresh before"
FIRST_OF_USER = "the first of its user, without a history"
NO_WEIGHT = "of weight 0 (data.weight)"
ONLY_ONE = "the only one of its user, without another item as history"


@dataclass(frozen=True)
class Events:
    """Training events, all [n].

    bucket: index of the refresh that the event belongs to. as_of: ms, the time of the user's
    history and of the item activity. weight: float32, how much the event counts in the loss; None
    if all events count 1. row: the row of the log; None if nobody asked for it. impression: the
    impression that the event is of, 0 if it is of none (see `Interactions`); None if the log has no
    impressions.
    """

    user: Tensor
    item: Tensor
    bucket: Tensor
    as_of: Tensor
    weight: Tensor | None = None
    row: Tensor | None = None
    impression: Tensor | None = None

    @classmethod
    def of(cls, log: Interactions, rows: Tensor, bucket: Tensor, as_of: Tensor) -> Self:
        """Some interactions as events. rows: numbers [n], or bool for each interaction; bucket,
        as_of: [n].
        """
        return cls(
            log.user[rows],
            log.item[rows],
            bucket,
            as_of,
            log.weight[rows] if log.weighted else None,
            impression=log.impression[rows] if log.has_impressions else None,
        )

    def each(self, change: Callable[[Tensor], Tensor]) -> Self:
        """The events with every tensor changed in the same way, such as `part[rows]`."""
        held = {name: part for name, part in vars(self).items() if part is not None}
        return replace(self, **{name: change(part) for name, part in held.items()})


def training_events(log: Interactions, times: Tensor, with_rows: bool = False) -> Events:
    """Events after the first refresh whose item was known at their refresh, because a served index
    has no other items. An interaction of weight 0 is no event.

    times: [buckets] ms, ascending. If activity is disabled it is the start of the log only, and the
    events are all but the first of each user without a history from before the log. with_rows:
    whether the events hold their rows.
    """
    if times.tolist() == [log.start]:
        order, ptr = log.sequences()
        first = order[ptr[:-1][ptr.diff() > 0]]
        kept = torch.ones_like(log.user, dtype=torch.bool)
        kept[first] = log.prior.has(log.user[first])
        return _events(log, kept, torch.zeros_like(log.user), log.time, with_rows)
    bucket, as_of = _refreshes(log, times)
    kept = (bucket >= 0) & (log.created[log.item] < as_of)
    return _events(log, kept, bucket, as_of, with_rows)


def left_out(log: Interactions, times: Tensor) -> dict[str, int]:
    """Number of interactions that are no training event with item activity, by reason.

    times: [buckets] ms, ascending.
    """
    bucket, as_of = _refreshes(log, times)
    early = bucket < 0
    unknown = ~early & (log.created[log.item] >= as_of)
    weightless = ~early & ~unknown & ~log.counts
    return {
        BEFORE_FIRST_REFRESH: int(early.sum()),
        UNKNOWN_ITEM: int(unknown.sum()),
        NO_WEIGHT: int(weightless.sum()),
    }


def _events(
    log: Interactions, chosen: Tensor, bucket: Tensor, as_of: Tensor, with_rows: bool
) -> Events:
    """The chosen interactions that have a weight above 0. All [n]."""
    rows = chosen & log.counts
    events = Events.of(log, rows, bucket[rows], as_of[rows])
    return replace(events, row=rows.nonzero().squeeze(1)) if with_rows else events


def _refreshes(log: Interactions, times: Tensor) -> tuple[Tensor, Tensor]:
    """The latest refresh before each interaction: its number, -1 if there is none, and its time (of
    the first one if there is none). → 2 x [n].
    """
    bucket = torch.searchsorted(times, log.time, right=True) - 1
    return bucket, times[bucket.clamp(min=0)]
