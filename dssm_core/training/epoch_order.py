"""The order of an epoch: which rows form each batch.

The same seed gives the same batches, so that a killed training continues where it was.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import pad

from dssm_core.features.shapes import rounded_up

GOLDEN_RATIO = (5**0.5 - 1) / 2
SORTED_TOGETHER = 50  # batches whose stretches are sorted by length, so that little is padding


@dataclass(frozen=True)
class Rows:
    """The rows of a batch, and the sizes of its tensors, which are known before the batch is taken.

    at: [B], on the device. events: the number of events, for users with their items about that
    number. length: that of the longest row. All count padding.
    """

    at: Tensor
    events: int
    length: int = 1

    @property
    def sizes(self) -> tuple[int, int, int]:
        """Batches of the same sizes have tensors of the same shapes."""
        return len(self.at), self.events, self.length


def sampled(rows: int, count: int, epoch: int, seed: int) -> Tensor:
    """`count` of `rows` rows, evenly spaced; each epoch takes others. → [count] ascending.

    Each epoch begins at another place between two rows. Multiples of the golden ratio spread these
    places evenly, so that after any number of epochs all rows were taken about equally often.
    """
    first = torch.rand((), generator=torch.Generator().manual_seed(seed), dtype=torch.double)
    start = (first + epoch * GOLDEN_RATIO) % 1
    places = (torch.arange(count, dtype=torch.double) + start) * (rows / count)
    return places.long().clamp(max=rows - 1)


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


def staged(batches: list[Tensor], device: torch.device, padding: int | None) -> list[Tensor]:
    """The batches of an epoch on the device, sent at once.

    padding: the row that fills batches up to one of a few sizes; None for batches as they are.
    """
    if padding is not None:
        batches = [
            pad(batch, (0, rounded_up(len(batch)) - len(batch)), value=padding) for batch in batches
        ]
    return list(torch.cat(batches).to(device).split([len(batch) for batch in batches]))


def _even_parts(count: int, size: int) -> Iterator[int]:
    """Split `count` into the fewest parts of at most `size`, of nearly equal length, so that no
    batch holds only a few events.
    """
    parts = -(-count // size)
    return (count * (part + 1) // parts - count * part // parts for part in range(parts))
