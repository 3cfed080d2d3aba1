"""What a negative sampler is, and the one categorical distribution most of them share."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from dssm_core.features import Log

Tables = dict[str, Tensor]


class Sampler(Protocol):
    """Draws candidates for all events of one bucket (the events between two refreshes) and knows their probability.

    The fields of a member are its settings; `tables` is what its `fit` gave, moved to the training device.
    """

    def fit(self, log: Log, as_of: Tensor) -> Tables:
        """Tables for `draw` and `log_q`. as_of: [buckets] ms, each bucket's refresh, ascending."""
        ...

    def draw(self, tables: Tables, bucket: int, count: int, positives: Tensor, generator: torch.Generator) -> Tensor:
        """Candidates for a batch of one bucket: [count] item codes. positives: [B], the batch's own items."""
        ...

    def log_q(self, tables: Tables, bucket: int, items: Tensor) -> Tensor:
        """Log-probability that one draw gives each item; -inf for one that is never drawn. items: [n] → [n] float32."""
        ...


def tally(bucket: Tensor, item: Tensor, weight: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Sum weights by (bucket, item). All [n] → distinct buckets and items, sorted by both, and their sums, float64."""
    stride = int(item.max()) + 1 if len(item) else 1
    keys, place = torch.unique(bucket * stride + item, return_inverse=True)
    sums = torch.zeros(len(keys), dtype=torch.double).index_add_(0, place, weight.double())
    return keys // stride, keys % stride, sums


def categorical(bucket: Tensor, item: Tensor, weight: Tensor, buckets: int) -> Tables:
    """A distribution over items for each of `buckets` buckets, from what `tally` gives → ptr, items, cdf, share.

    `cdf` runs from 0 to 1 within a bucket; ptr: [buckets + 1], where each begins.
    """
    ptr = torch.searchsorted(bucket, torch.arange(buckets + 1))
    share = weight / torch.zeros(buckets, dtype=torch.double).index_add_(0, bucket, weight)[bucket]
    running = share.cumsum(0)
    before = torch.cat([running.new_zeros(1), running])[ptr[:-1]]
    return {"ptr": ptr, "items": item, "cdf": (running - before[bucket]).clamp(max=1.0), "share": share}


def draw_categorical(tables: Tables, bucket: int, count: int, generator: torch.Generator) -> Tensor:
    """`count` items of one bucket's distribution by inverting its cdf. → [count] item codes."""
    begin, end = tables["ptr"][bucket : bucket + 2].tolist()
    uniform = torch.rand(count, generator=generator, device=generator.device, dtype=torch.double)
    place = torch.searchsorted(tables["cdf"][begin:end], uniform, right=True).clamp(max=end - begin - 1)
    return tables["items"][begin + place]


def share_of(tables: Tables, bucket: int, items: Tensor) -> Tensor:
    """Probability of each item in one bucket's distribution, 0 where it is not in it. items: [n] → [n] float64."""
    begin, end = tables["ptr"][bucket : bucket + 2].tolist()
    held = tables["items"][begin:end]
    if not len(held):
        return torch.zeros(len(items), dtype=torch.double, device=items.device)
    place = torch.searchsorted(held, items).clamp(max=len(held) - 1)
    return torch.where(held[place] == items, tables["share"][begin:end][place], 0.0)
