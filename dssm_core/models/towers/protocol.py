"""What a tower is, and the plain layers that several share."""

from __future__ import annotations

from itertools import pairwise
from typing import ClassVar, Protocol

import torch
from torch import Tensor, nn

from dssm_core.config import History
from dssm_core.models.dropout import Dropout
from dssm_core.models.pooling import Pools

POOLING = (
    "features.history.pools",
    "features.history.decays",
    "features.history.learn_decays",
)  # settings of no effect under a tower that does not pool histories by them


class Tower(Protocol):
    """The networks of both sides. The fields of a member are its settings. A tower does not
    normalise its vectors.
    """

    ignores: ClassVar[tuple[str, ...]]
    """Settings of the config that have no effect under this tower, by dotted path."""
    fixed_shapes: ClassVar[bool]
    """Whether no shape depends on values, so that a GPU can repeat a step without waiting for the
    CPU."""
    user_only: ClassVar[tuple[str, ...]]
    """Its own settings that the item side does not read."""

    def user(self, history: History, width: int, field_dims: list[int], dim: int) -> nn.Module:
        """A module (history [B, L, width], held [B, L] bool, fields, every) → [B, dim], at every
        place [B, L, dim].

        history: oldest first, padding last. fields: each [B, field_dims[i]], or [B, L,
        field_dims[i]] with `every`. With `every`, what a place gives depends on the history up to
        it alone: each prefix is a training example.
        """
        ...

    def item(self, field_dims: list[int], dim: int) -> nn.Module:
        """A module from fields, each [N, field_dims[i]], the id's embedding first, to [N, dim]."""
        ...


class Concatenated(nn.Module):
    """A network over all fields side by side: fields, each [..., d] → [..., dim]."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, fields: list[Tensor]) -> Tensor:
        """See the class."""
        out: Tensor = self.network(torch.cat(fields, dim=-1))
        return out


class Pooled(nn.Module):
    """A user side that pools its history into fields, for a network over fields.
    `network(field_dims)` makes it.
    """

    def __init__(self, pools: Pools, network: nn.Module) -> None:
        super().__init__()
        self.pools, self.network = pools, network

    def forward(self, history: Tensor, held: Tensor, fields: list[Tensor], every: bool) -> Tensor:
        """See Tower.user."""
        out: Tensor = self.network([*self.pools(history, held, every), *fields])
        return out


def perceptron(size: int, hidden: tuple[int, ...], dim: int, dropout: float = 0.0) -> nn.Sequential:
    """Linear layers with ReLU between them: size → hidden → dim."""
    sizes = [size, *hidden]
    layers = [
        layer
        for a, b in pairwise(sizes)
        for layer in (nn.Linear(a, b), nn.ReLU(), Dropout(dropout))
    ]
    return nn.Sequential(*layers, nn.Linear(sizes[-1], dim))
