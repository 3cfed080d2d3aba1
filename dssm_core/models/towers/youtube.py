"""The YouTube tower: the newest item, the mean of the history and powers of the statistics
(Covington et al. 2016).
"""

from __future__ import annotations

from typing import Annotated, ClassVar

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from dssm_core.config import History
from dssm_core.models.pooling import Pools
from dssm_core.models.towers.linear import Sum
from dssm_core.models.towers.protocol import POOLING, Pooled, perceptron


class Youtube(BaseModel):
    """The user side sees the newest item, the mean of the history, and numbers x also as x² and √x.
    The item side is a sum of projections.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)
    ignores: ClassVar[tuple[str, ...]] = POOLING
    fixed_shapes: ClassVar[bool] = True
    user_only: ClassVar[tuple[str, ...]] = ("hidden", "dropout")
    hidden: tuple[Annotated[int, Field(ge=1)], ...] = (256, 128)
    """Number of units of each hidden layer."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of the units that is zeroed in training."""

    def user(self, history: History, width: int, field_dims: list[int], dim: int) -> nn.Module:
        """See Tower. The last field holds the numbers."""
        pools = Pools(history.model_copy(update={"pools": ("last", "mean")}), width)
        size = sum(pools.dims) + sum(field_dims) + 2 * field_dims[-1]
        return Pooled(pools, _WithPowers(perceptron(size, self.hidden, dim, self.dropout)))

    def item(self, field_dims: list[int], dim: int) -> nn.Module:
        """See Tower."""
        return Sum(field_dims, dim)


class _WithPowers(nn.Module):
    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, fields: list[Tensor]) -> Tensor:
        """fields, each [..., d], numbers last → [..., dim]. The root keeps a number's sign."""
        numbers = fields[-1]
        root = numbers.sign() * (numbers.abs() + 1e-6).sqrt()
        out: Tensor = self.network(torch.cat([*fields, numbers.square(), root], -1))
        return out
