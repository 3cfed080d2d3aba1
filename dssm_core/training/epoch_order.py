"""The order of an epoch: which rows form each batch.

The same seed gives the same batches, so that a killed training continues where it was.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

SORTED_TOGETHER = 50  # batches whose stretches are sorted by length, so that little is padding


def epoch_batches(bucket: Tensor, size: int, seed: int) -> list[Tensor]:
    """Batches of events of the same bucket: events shuffled in their bucket, then batches shuffled.

    bucket: [n] ascending. Returns the rows of each batch, at most `size`.
    """
    generator = torch.Generator().manual_seed(seed)
    sizes = [part for count in bucket.bincount().tolist() for part in _even_parts(count, size)]
    batches = shuffled_within(bucket, generator).split(sizes)
    shuffled = torch.randperm(len(batches), generator=generator).tolist()
    return [batches[number] for number in shuffled]


def length_batches(lengths: Tensor, size: int, seed: int) -> list[Tensor]:
    """Batches of about `size` events: rows shuffled, rows of similar length in the same batch.

    lengths: [n] events of each row. Returns the rows of each batch.
    """
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(lengths), generator=generator)
    group = lengths[order].cumsum(0) // (size * SORTED_TOGETHER)
    order = order[(group * (int(lengths.max()) + 1) + lengths[order]).argsort(stable=True)]
    batches = filled(order, lengths, size)
    shuffled = torch.randperm(len(batches), generator=generator).tolist()
    return [batches[number] for number in shuffled]


def filled(order: Tensor, lengths: Tensor, size: int) -> list[Tensor]:
    """Split `order` into parts of about `size` events. order: [n] rows; lengths: [n] events of each
    row.
    """
    batch = (lengths[order].cumsum(0) - 1) // size
    return list(order.split(batch.unique_consecutive(return_counts=True)[1].tolist()))


def shuffled_within(group: Tensor, generator: torch.Generator) -> Tensor:
    """An order of rows that keeps groups together, ascending, and shuffles the rows of each group.

    group: [n], on the generator's device. → [n].
    """
    noise = torch.rand(len(group), generator=generator, device=group.device, dtype=torch.double)
    return (group.double() + noise).argsort()


def _even_parts(count: int, size: int) -> Iterator[int]:
    """Split `count` into the fewest parts of at most `size`, of nearly equal length, so that no
    batch holds only a few events.
    """
    parts = -(-count // size)
    return (count * (part + 1) // parts - count * part // parts for part in range(parts))
