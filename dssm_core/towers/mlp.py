"""The DSSM tower: all fields side by side through a multi-layer perceptron (Huang et al. 2013)."""

from __future__ import annotations

from itertools import pairwise
from typing import Annotated

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn


class Mlp(BaseModel):
    """`hidden`: units of each hidden layer; ReLU between them."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    hidden: tuple[Annotated[int, Field(ge=1)], ...] = (128,)

    def build(self, field_dims: list[int], dim: int) -> nn.Module:
        """See Tower."""
        sizes = [sum(field_dims), *self.hidden]
        layers = [layer for a, b in pairwise(sizes) for layer in (nn.Linear(a, b), nn.ReLU())]
        return _Concatenated(nn.Sequential(*layers, nn.Linear(sizes[-1], dim)))


class _Concatenated(nn.Module):
    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, fields: list[Tensor]) -> Tensor:
        out: Tensor = self.network(torch.cat(fields, dim=1))
        return out
