"""One training by several processes (ranks), each with its part of every batch.

All ranks take the same batch and draw the same candidates, because they have the same seeds. A rank
embeds its part of the users and its part of the distinct items. The vectors of the items are then
gathered, so that each event is compared with the candidates of the whole batch, and log-Q is that
of the whole batch. The losses of the parts add up to the loss of the batch, and their gradients to
its gradient: an update is that of one process, up to rounding. Only dropout differs.

Gradients are summed after the backward pass and not by `DistributedDataParallel`, because the
backward pass has a collective of its own, and NCCL cannot sum the sparse gradients of large tables.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.functional import pad

from dssm_core.features.inputs import UserInputs
from dssm_core.training.batches import Batch
from dssm_core.training.logits import total_weight


@dataclass(frozen=True)
class Part:
    """A rank's part of a batch.

    batch: some users with their events. at: [e], which events of the whole batch these are. share:
    what the mean loss of the part counts in the loss of the batch.
    """

    batch: Batch
    at: Tensor | slice
    share: Tensor | float


@dataclass(frozen=True)
class Ranks:
    """This process among those that train. rank: its number, from 0. size: how many they are."""

    rank: int = 0
    size: int = 1

    @property
    def alone(self) -> bool:
        """Whether one process trains."""
        return self.size == 1

    @property
    def first(self) -> bool:
        """Whether this process is the one that logs and writes checkpoints."""
        return self.rank == 0

    @property
    def fixed_shapes(self) -> bool:
        """Whether no shape depends on values: the number of events of a part does. So several
        processes use no CUDA graphs.
        """
        return self.alone

    def wait(self) -> None:
        """Wait until all ranks are here."""
        if not self.alone:
            dist.barrier()

    def part(self, batch: Batch) -> Part:
        """Every `size`-th user of a batch with the user's events.

        A batch of fewer users than ranks is computed whole by all of them, and counts 1 / `size`.
        """
        users = len(batch.inputs.history)
        if self.alone or users < self.size:
            return Part(batch, slice(None), 1 / self.size)
        user = _user_of_each_event(batch)
        at = (user % self.size == self.rank).nonzero().squeeze(1)
        user = user[at] // self.size
        length = batch.inputs.history.shape[1]
        part = Batch(
            UserInputs(*(column[self.rank :: self.size] for column in batch.inputs)),
            batch.events.each(lambda values: values[at]),
            batch.bucket,
            None if batch.positions is None else user * length + batch.positions[at] % length,
            None if batch.rows is None else user,
        )
        return Part(part, at, _weight(part) / _weight(batch))

    def own_rows(self, values: Tensor) -> Tensor:
        """This rank's part of the rows of a tensor that all ranks have. Every part has the same
        length; the last row of the tensor fills it up. [n, ...] → [k, ...].
        """
        if self.alone:
            return values
        count = -(-len(values) // self.size)
        places = torch.arange(count, device=values.device) + self.rank * count
        return values[places.clamp(max=len(values) - 1)]

    def gather(self, part: Tensor, count: int) -> Tensor:
        """The rows of all ranks, the inverse of `own_rows`. Their gradients are summed over the
        ranks. [k, ...] → [count, ...].
        """
        if self.alone:
            return part
        every: Tensor = _Gather.apply(part, self.size)  # type: ignore[no-untyped-call]
        return every[:count]

    def add_up(self, model: nn.Module, loss: Tensor) -> Tensor:
        """Sum the gradients of a model over the ranks. Returns the sum of the losses. [] → [].

        Sparse gradients, those of large embedding tables, are exchanged by rows.
        """
        if self.alone:
            return loss
        used = [parameter for parameter in model.parameters() if parameter.grad is not None]
        dense = [p.grad for p in used if p.grad is not None and not p.grad.is_sparse] + [loss]
        total = torch.cat([part.flatten() for part in dense])
        dist.all_reduce(total)
        sums = total.split([part.numel() for part in dense])
        for part, of_all in zip(dense, sums, strict=True):
            part.copy_(of_all.view_as(part))
        for parameter in used:
            if parameter.grad is not None and parameter.grad.is_sparse:
                parameter.grad = self._sum_of_rows(parameter.grad.coalesce())
        return loss

    def _sum_of_rows(self, gradient: Tensor) -> Tensor:
        """The sum of the ranks' coalesced sparse gradients of a table."""
        rows = self._of_all(gradient.indices()[0])
        values = self._of_all(gradient.values())
        every = torch.sparse_coo_tensor(rows[None], values, gradient.shape, check_invariants=False)
        return every.coalesce()

    def _of_all(self, part: Tensor) -> Tensor:
        """The rows of all ranks, of which each has another number. [k, ...] → [n, ...]."""
        counts = _gathered(torch.tensor([len(part)], device=part.device), self.size).tolist()
        filled = pad(part, (0, 0) * (part.dim() - 1) + (0, max(counts) - len(part)))
        of_each = _gathered(filled, self.size).split(max(counts))
        return torch.cat([rows[:count] for rows, count in zip(of_each, counts, strict=True)])


ALONE = Ranks()


class _Gather(torch.autograd.Function):
    """The rows of all ranks, of which each has as many. Gradients are summed over the ranks."""

    @staticmethod
    def forward(ctx, part: Tensor, ranks: int) -> Tensor:  # type: ignore[no-untyped-def]
        return _gathered(part, ranks)

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor, None]:  # type: ignore[no-untyped-def]
        part = torch.empty_like(grad[: len(grad) // dist.get_world_size()])
        dist.reduce_scatter_single(part, grad.contiguous())
        return part, None


def _gathered(part: Tensor, ranks: int) -> Tensor:
    """[k, ...] → [ranks * k, ...]."""
    every = part.new_empty(ranks * len(part), *part.shape[1:])
    dist.all_gather_single(every, part.contiguous())
    return every


def _user_of_each_event(batch: Batch) -> Tensor:
    """The row of each event's user. → [n]."""
    if batch.rows is not None:
        return batch.rows
    if batch.positions is not None:
        return batch.positions // batch.inputs.history.shape[1]
    return torch.arange(len(batch.events.item), device=batch.events.item.device)


def _weight(batch: Batch) -> Tensor:
    """The sum of the weights of a batch's events. → []."""
    return total_weight(batch.events.item > 0, batch.events.weight)
