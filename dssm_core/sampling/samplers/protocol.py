"""What a negative sampler is, and the categorical distribution that most samplers draw from."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar, Protocol

import torch
from torch import Tensor

from dssm_core.features.events import Events
from dssm_core.features.ids import Ids
from dssm_core.features.interactions import Interactions

Tables = dict[str, Tensor]
Bucket = int | Tensor  # the number of a bucket, or a tensor [1] of it
FittedIds = Mapping[str, Ids]  # schema.USER and schema.ITEM → the train window's ids


class Sampler(Protocol):
    """Draws candidates for all events of one bucket (the events between two refreshes) and knows
    their probability.

    The fields of a member are its settings. `tables` are those that its `fit` returned, on the
    training device.
    """

    from_batch: ClassVar[bool]
    """Whether the candidates are the batch's own positives, in the batch's order."""
    same_for_all: ClassVar[bool]
    """Whether all buckets and users have the same distribution."""
    ignores: ClassVar[tuple[str, ...]]
    """Settings of the config that have no effect under this sampler, by dotted path."""

    @property
    def fixed_shapes(self) -> bool:
        """Whether no shape in `draw` and `log_q` depends on values, so that a GPU can repeat a step
        without waiting for the CPU. `bucket` is then a tensor.
        """
        ...

    @property
    def own(self) -> bool:
        """Whether each event has its own candidates ([B, count]), or all events of a batch share
        them ([count]). The properties are class variables if they do not depend on settings.
        """
        ...

    @property
    def even(self) -> bool:
        """Whether all items that can be drawn for an event have the same probability."""
        ...

    @property
    def draws_positives(self) -> bool:
        """Whether a user's own positives can be drawn for that user."""
        ...

    def files(self) -> dict[str, Path]:
        """The files that `fit` reads beside the log, by name. They are part of the step's key."""
        ...

    def fit(self, log: Interactions, as_of: Tensor, ids: FittedIds) -> Tables:
        """Tables for `draw` and `log_q`. as_of: [buckets] ms, each bucket's refresh, ascending;
        ids: what codes stand for.
        """
        ...

    def draw(
        self, tables: Tables, bucket: Bucket, count: int, events: Events, generator: torch.Generator
    ) -> Tensor:
        """Candidates for the batch `events`, all of one bucket: item codes [count], or [B, count]
        if each event has its own. Events of item 0 are padding.
        """
        ...

    def log_q(self, tables: Tables, bucket: Bucket, items: Tensor, events: Events) -> Tensor:
        """Log-probability that one draw returns each item, -inf for an item that is never drawn.

        items: [n], or [B, n] if each event has its own candidates → the same shape, float32.
        """
        ...


def tally(bucket: Tensor, item: Tensor, weight: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Sum weights by (bucket, item). All [n] → distinct buckets and items, sorted by both, and
    their sums, float64.
    """
    stride = int(item.max()) + 1 if len(item) else 1
    keys, place = torch.unique(bucket * stride + item, return_inverse=True)
    sums = torch.zeros(len(keys), dtype=torch.double).index_add_(0, place, weight.double())
    return keys // stride, keys % stride, sums


def categorical(bucket: Tensor, item: Tensor, weight: Tensor, buckets: int) -> Tables:
    """A distribution over items for each of `buckets` buckets, from what `tally` gives, ready to
    draw from in O(1).

    ptr: [buckets + 1], where each bucket begins in items, share (probability), and its alias table
    keep, alias. key: bucket * stride + item, ascending; stride: [1].
    """
    ptr = torch.searchsorted(bucket, torch.arange(buckets + 1))
    share = weight / torch.zeros(buckets, dtype=torch.double).index_add_(0, bucket, weight)[bucket]
    tables = [alias_table(part) for part in share.split(ptr.diff().tolist())]
    keep, alias = (torch.cat(parts) for parts in zip(*tables, strict=True))
    stride = item.max().reshape(1) + 1 if len(item) else torch.ones(1, dtype=torch.int64)
    return {
        "ptr": ptr,
        "items": item,
        "share": share,
        "keep": keep,
        "alias": alias,
        "key": bucket * stride + item,
        "stride": stride,
    }


def categorical_of_all(share: Tensor) -> Tables:
    """One distribution over all items for all buckets. share: [N], of codes 1..N, in any unit."""
    items = torch.arange(1, len(share) + 1)
    return categorical(torch.zeros_like(items), items, share.double(), buckets=1)


def by_frequency(log: Interactions) -> tuple[Tensor, Tensor]:
    """Rows (code - 1) of all items, most clicked first, ties by code; and each row's clicks. → 2 x
    [N].
    """
    clicks = torch.bincount(log.item, minlength=len(log.created))[1:]
    return clicks.argsort(descending=True, stable=True), clicks


def alias_table(share: Tensor) -> tuple[Tensor, Tensor]:
    """Walker's alias table: draw a cell evenly, stay with probability `keep`, else go to `alias`.
    share: [n] → 2 x [n].

    Cells below the mean are filled up by those above it, in order. Running sums of the deficits and
    of the surpluses say which cell fills which, without a loop (Hübschle-Schneider & Sanders 2022,
    "Parallel Weighted Random Sampling").
    """
    height = share * len(share)
    low, high = (height < 1).nonzero().squeeze(1), (height >= 1).nonzero().squeeze(1)
    keep, alias = torch.ones_like(height), torch.arange(len(share))
    if not len(low) or not len(high):
        return keep, alias
    lacking, over = (1 - height[low]).cumsum(0), (height[high] - 1).cumsum(0)
    last = len(high) - 1
    filled_by = torch.searchsorted(over, lacking - (1 - height[low]), right=True).clamp(max=last)
    keep[low], alias[low] = height[low], high[filled_by]
    emptied_by = torch.searchsorted(
        lacking, over, right=True
    )  # the low cell that takes more than a high one has left
    taken = emptied_by < len(low)
    beyond = (lacking[emptied_by.clamp(max=len(low) - 1)] - over)[taken]
    following = (torch.arange(len(high)) + 1).clamp(max=last)
    keep[high[taken]], alias[high[taken]] = (1 - beyond).clamp(min=0), high[following[taken]]
    return keep, alias


def draw_categorical(
    tables: Tables, bucket: Bucket, count: int, generator: torch.Generator
) -> Tensor:
    """`count` items of one bucket's distribution, any items if it is empty. → [count] codes."""
    begin = tables["ptr"][bucket]
    size = tables["ptr"][bucket + 1] - begin
    at = torch.rand(count, generator=generator, device=generator.device, dtype=torch.double) * size
    cell = at.long()  # the integer part selects the cell, the fraction decides whether to stay
    place = (begin + cell).clamp(max=len(tables["items"]) - 1)
    cell = torch.where(at - cell < tables["keep"][place], cell, tables["alias"][place])
    return tables["items"][(begin + cell).clamp(max=len(tables["items"]) - 1)]


def share_of(tables: Tables, bucket: Bucket, items: Tensor) -> Tensor:
    """Probability of each item in one bucket's distribution, 0 if it is not in it. items: any shape
    → the same shape, float64.
    """
    if not len(tables["items"]):
        return torch.zeros(items.shape, dtype=torch.double, device=items.device)
    place = torch.searchsorted(tables["key"], bucket * tables["stride"] + items)
    begin, end = tables["ptr"][bucket], tables["ptr"][bucket + 1]
    held = (begin <= place) & (place < end)
    place = place.clamp(max=len(tables["items"]) - 1)
    return torch.where(held & (tables["items"][place] == items), tables["share"][place], 0.0)


def mean_share(
    sampler: Sampler, tables: Tables, bucket: int, items: Tensor, log: Interactions
) -> Tensor:
    """Each item's probability in one draw; where candidates are `own`, the mean over 100 events
    spread over the log. [n] → [n].
    """
    rows = torch.linspace(
        0, len(log.user) - 1, min(100, len(log.user)) if sampler.own else 1
    ).long()
    events = Events.of(log, rows, torch.full_like(rows, bucket), log.time[rows])
    return sampler.log_q(tables, bucket, items.expand(len(rows), -1), events).double().exp().mean(0)


def side_by_side(candidates: list[Tensor]) -> Tensor:
    """Concatenate the candidates of several samplers: [C] if all are shared, else [B, C] with the
    shared ones repeated for each event.
    """
    rows = max((part.shape[:-1] for part in candidates), key=len)
    return torch.cat([part.expand(*rows, -1) for part in candidates], dim=-1)
