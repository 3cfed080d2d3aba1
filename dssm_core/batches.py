"""Batches of training events: all events of a batch share one refresh, so that they can share candidates."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from dssm_core.features import Log


@dataclass(frozen=True)
class Events:
    """The rows of a log that can be learned from, with what was known of each. All [n], in time order.

    bucket: the refresh an event belongs to; as_of: ms, when its user's history and its items' activity are taken.
    """

    user: Tensor
    item: Tensor
    bucket: Tensor
    as_of: Tensor


def training_events(log: Log, times: Tensor) -> Events:
    """Events after the first refresh whose item was known at their refresh: a served index holds no other.

    times: [buckets] ms, ascending; the log's start alone where activity is off: then every event is in one bucket, with
    its history as of the event itself.
    """
    bucket = torch.searchsorted(times, log.time, right=True) - 1
    if times.tolist() == [log.start]:
        return Events(log.user, log.item, torch.zeros_like(bucket), log.time)
    as_of = times[bucket.clamp(min=0)]
    kept = (bucket >= 0) & (log.created[log.item] < as_of)
    return Events(log.user[kept], log.item[kept], bucket[kept], as_of[kept])


def epoch_batches(bucket: Tensor, size: int, seed: int) -> list[Tensor]:
    """Rows of each batch of one epoch: events shuffled within their bucket, batches shuffled. bucket: [n] ascending.

    The same seed gives the same batches, which is what lets a killed run go on where it was.
    """
    generator = torch.Generator().manual_seed(seed)
    order = (bucket.double() + torch.rand(len(bucket), generator=generator, dtype=torch.double)).argsort()
    counts = bucket.bincount()
    sizes = [size_ for count in counts.tolist() for size_ in _even(count, size)]
    batches = order.split(sizes)
    return [batches[place] for place in torch.randperm(len(batches), generator=generator).tolist()]


def _even(count: int, size: int) -> Iterator[int]:
    """`count` in as few parts as fit `size`, of nearly one length: no batch of a few left-over events."""
    parts = -(-count // size)
    return (count * (part + 1) // parts - count * part // parts for part in range(parts))
