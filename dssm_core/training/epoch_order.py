"""The order of an epoch: which rows form each batch. The same seed gives the same batches."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

SORTED_TOGETHER = 50  # batches' worth of stretches sorted by length, so that little is padding


def epoch_batches(bucket: Tensor, size: int, seed: int) -> list[Tensor]:
    """Rows of each batch of one epoch: events shuffled within their bucket, batches shuffled.
    bucket: [n] ascending.

    The same seed gives the same batches, which is what lets a killed run go on where it was.
    """
    generator = torch.Generator().manual_seed(seed)
    sizes = [size_ for count in bucket.bincount().tolist() for size_ in _even(count, size)]
    batches = shuffled_within(bucket, generator).split(sizes)
    return [batches[place] for place in torch.randperm(len(batches), generator=generator).tolist()]


def _even(count: int, size: int) -> Iterator[int]:
    """`count` in as few parts as fit `size`, of nearly one length: no batch of a few left-over
    events.
    """
    parts = -(-count // size)
    return (count * (part + 1) // parts - count * part // parts for part in range(parts))


def length_batches(lengths: Tensor, size: int, seed: int) -> list[Tensor]:
    """Rows of each batch of one epoch: shuffled, those of like length together, about `size` events
    a batch.
    """
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(lengths), generator=generator)
    group = lengths[order].cumsum(0) // (size * SORTED_TOGETHER)
    order = order[(group * (int(lengths.max()) + 1) + lengths[order]).argsort(stable=True)]
    batches = filled(order, lengths, size)
    return [batches[place] for place in torch.randperm(len(batches), generator=generator).tolist()]


def filled(order: Tensor, lengths: Tensor, size: int) -> list[Tensor]:
    """`order` in parts of about `size` events. order: [n] rows; lengths: [n] events of each row."""
    batch = (lengths[order].cumsum(0) - 1) // size
    return list(order.split(batch.unique_consecutive(return_counts=True)[1].tolist()))


def shuffled_within(group: Tensor, generator: torch.Generator) -> Tensor:
    """An order of the rows that keeps groups together, ascending, and shuffles each. group: [n], on
    the generator's device.
    """
    return (
        group.double()
        + torch.rand(len(group), generator=generator, device=group.device, dtype=torch.double)
    ).argsort()
