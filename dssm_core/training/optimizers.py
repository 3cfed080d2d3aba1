"""Learning rate, parameter groups, and the optimizers of dense and sparse parameters."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from dssm_core.config import Train
from dssm_core.models.two_tower import TwoTower


@dataclass(frozen=True)
class Optimizers:
    """The optimizers of a model, and the parameters that are clipped and averaged.

    dense: the model's parameters except for large embedding tables. averaged: the same parameters
    of the averaged model, in the same order.
    """

    members: list[torch.optim.Optimizer]
    dense: list[Tensor]
    averaged: list[Tensor]
    rate: Tensor | None = None
    """The learning rate on a GPU, []: a CUDA graph of `step` reads it from there."""

    @property
    def parts_of_changing_shapes(self) -> list[str]:
        """The optimizers whose shapes depend on values: SparseAdam updates only the rows of a
        large table that a batch has, and adds up the gradients of each distinct row first.
        """
        return [type(member).__name__ for member in self.members[1:]]

    def set_learning_rate(self, rate: float) -> None:
        """Set the learning rate of all parameter groups."""
        if self.rate is not None:
            self.rate.fill_(rate)
        for optimizer in self.members:
            for group in optimizer.param_groups:  # a checkpoint's are those of its device
                group["lr"] = rate if self.rate is None else self.rate
                group["capturable"] = self.rate is not None

    def step(self) -> None:
        """One update of all parameters."""
        for optimizer in self.members:
            optimizer.step()


def make_optimizers(model: TwoTower, average: TwoTower, settings: Train) -> Optimizers:
    """AdamW (Loshchilov & Hutter 2019), and SparseAdam for tables above settings.sparse_rows.

    average: a copy of `model`; it shares the large tables with it from now on.
    """
    device = model.log_temperature.device
    large = _share_large_tables(model, average, settings.sparse_rows)
    dense = _without(model, large)
    groups = _parameter_groups(dense, settings.weight_decay)
    members: list[torch.optim.Optimizer] = [torch.optim.AdamW(groups, fused=True)]
    if large:
        members.append(torch.optim.SparseAdam(large))
    rate = torch.zeros((), device=device) if device.type == "cuda" and not large else None
    return Optimizers(members, dense, _without(average, large), rate)


def learning_rate(settings: Train, done: int, total: int) -> float:
    """The learning rate after `done` of `total` steps: linear warm-up, then a half cosine to zero.

    The warm-up takes the share settings.warmup_share of all steps.
    """
    warm = max(1.0, settings.warmup_share * total)
    if done < warm:
        return settings.learning_rate * (done + 1) / warm
    progress = (done - warm) / max(1.0, total - warm)
    return settings.learning_rate * 0.5 * (1 + math.cos(math.pi * progress))


def horizon(settings: Train, epoch: int) -> int:
    """The number of epochs over which the learning rate falls to zero, as of an epoch (from 0 on).

    It is settings.epochs, and doubles at each epoch that reaches it, up to settings.last_epoch.
    """
    total = settings.epochs
    while total <= epoch and total < settings.last_epoch:
        total = min(2 * total, settings.last_epoch)
    return total


def _share_large_tables(model: TwoTower, average: TwoTower, rows: int) -> list[Tensor]:
    """Let both models use one copy of each embedding table of more than `rows` rows, with sparse
    gradients. Returns these tables.

    Their cost then depends on the batch instead of the vocabulary. They are not averaged over
    steps, because an average would touch every row.
    """
    large: list[Tensor] = []
    for module, copy in zip(model.modules(), average.modules(), strict=True):
        if not isinstance(module, torch.nn.Embedding) or not isinstance(copy, torch.nn.Embedding):
            continue
        if module.num_embeddings > rows:
            module.sparse = True
            copy.weight = module.weight
            large.append(module.weight)
    return large


def _without(model: TwoTower, tables: list[Tensor]) -> list[Tensor]:
    """The parameters of a model that are not among `tables`."""
    excluded = {id(table) for table in tables}
    return [parameter for parameter in model.parameters() if id(parameter) not in excluded]


def _parameter_groups(parameters: list[Tensor], weight_decay: float) -> list[dict[str, Any]]:
    """Weight decay for matrices, none for biases, gains and the temperature."""
    matrices = [parameter for parameter in parameters if parameter.ndim > 1]
    others = [parameter for parameter in parameters if parameter.ndim <= 1]
    return [
        {"params": matrices, "weight_decay": weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]
