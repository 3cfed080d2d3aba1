"""An element-wise gated linear recurrence, computed by a parallel scan (minGRU, Feng et al. 2024;
Martin & Cundy 2018).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Annotated, ClassVar

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn
from torch.nn.functional import silu

from dssm_core.config import Config, History
from dssm_core.models.dropout import Dropout
from dssm_core.models.pooling import scan
from dssm_core.models.towers.blocks import SequenceUser, no_histories, stacked
from dssm_core.models.towers.linear import Sum
from dssm_core.models.towers.protocol import POOLING


class Recurrent(BaseModel):
    """Blocks of a gated linear recurrence and a feed-forward layer. Each unit has its own memory:
    decays start spread from 2 to 64 positions.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)
    ignores: ClassVar[tuple[str, ...]] = POOLING
    fixed_shapes: ClassVar[bool] = True
    user_only: ClassVar[tuple[str, ...]] = ("blocks", "expansion", "dropout", "embedding_dropout")
    blocks: Annotated[int, Field(ge=1)] = 2
    """Number of blocks."""
    expansion: Annotated[float, Field(gt=0)] = 2.0
    """Width of the feed-forward layers as a multiple of features.id_dim."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.2
    """Share of each layer's output that is zeroed in training."""
    embedding_dropout: Annotated[float, Field(ge=0, lt=1)] = 0.3
    """Share of the embedded history that is zeroed in training."""

    def problems(self, config: Config) -> Iterator[str]:
        """See no_histories."""
        yield from no_histories(config)

    def user(self, history: History, width: int, field_dims: list[int], dim: int) -> nn.Module:
        """See Tower."""
        layers = stacked(
            self.blocks,
            lambda: _Recurrence(width, self.dropout),
            width,
            self.expansion,
            self.dropout,
        )
        return SequenceUser(layers, None, width, field_dims, dim, self.embedding_dropout)

    def item(self, field_dims: list[int], dim: int) -> nn.Module:
        """See Tower."""
        return Sum(field_dims, dim)


class _Recurrence(nn.Module):
    """x [B, L, E] → its update [B, L, E]: h[t] = keep[t] h[t-1] + (1 - keep[t]) value[t], keep a
    sigmoid of the input.
    """

    def __init__(self, width: int, dropout: float) -> None:
        super().__init__()
        self.norm, self.states, self.dropout = (
            nn.LayerNorm(width),
            nn.LayerNorm(width),
            Dropout(dropout),
        )
        self.inputs, self.output = nn.Linear(width, 3 * width), nn.Linear(width, width)
        spans = torch.logspace(math.log10(2), math.log10(64), width)
        with torch.no_grad():
            self.inputs.bias[:width] = torch.log(spans - 1)  # sigmoid = 1 - 1 / span

    def forward(self, x: Tensor, held: Tensor) -> Tensor:
        keep, value, gate = self.inputs(self.norm(x)).chunk(3, -1)
        keep = keep.float().sigmoid()
        states = scan(keep, (1 - keep) * value.float())
        return torch.as_tensor(self.dropout(self.output(self.states(states) * silu(gate))))
