"""Squeeze and excitation over feature fields: each field is scaled by how much it matters here (Hu
et al. 2018).

Huang et al. 2019 (FiBiNET) brought it to recommendation; two-tower models for recall use it to keep
weak fields quiet.
"""

from __future__ import annotations

from typing import Annotated, ClassVar

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from dssm_core.config import History
from dssm_core.models.pooling import Pools
from dssm_core.models.towers.protocol import Pooled, perceptron


class Senet(BaseModel):
    """A perceptron over fields that are first scaled by how much they matter for the row."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)
    ignores: ClassVar[tuple[str, ...]] = ()
    fixed_shapes: ClassVar[bool] = True
    user_only: ClassVar[tuple[str, ...]] = ()
    hidden: tuple[Annotated[int, Field(ge=1)], ...] = (128,)
    """Number of units of each hidden layer."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of the units that is zeroed in training."""
    reduction: Annotated[int, Field(ge=1)] = 2
    """Number of fields for each unit of the excitation's hidden layer."""

    def user(self, history: History, width: int, field_dims: list[int], dim: int) -> nn.Module:
        """See Tower."""
        pools = Pools(history, width)
        return Pooled(pools, self.item([*pools.dims, *field_dims], dim))

    def item(self, field_dims: list[int], dim: int) -> nn.Module:
        """See Tower."""
        return _Senet(
            field_dims, self.reduction, perceptron(sum(field_dims), self.hidden, dim, self.dropout)
        )


class _Senet(nn.Module):
    def __init__(self, field_dims: list[int], reduction: int, network: nn.Module) -> None:
        super().__init__()
        fields = sum(width > 0 for width in field_dims)
        squeezed = max(1, fields // reduction)
        self.excitation = nn.Sequential(
            nn.Linear(fields, squeezed), nn.ReLU(), nn.Linear(squeezed, fields)
        )
        self.network = network

    def forward(self, fields: list[Tensor]) -> Tensor:
        """fields, each [..., d] → [..., dim]. Weights are twice a sigmoid: 1, not a half, where
        excitation is silent.
        """
        wide = [field for field in fields if field.shape[-1]]
        weights = (
            2 * self.excitation(torch.stack([field.mean(-1) for field in wide], -1)).sigmoid()
        )  # [..., fields]
        scaled = [field * weights[..., place : place + 1] for place, field in enumerate(wide)]
        out: Tensor = self.network(torch.cat(scaled, -1))
        return out
