"""A causal self-attention user tower (SASRec, Kang & McAuley 2018), trained at every place of a
history in one pass.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, ClassVar

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from dssm_core.config import Config, History
from dssm_core.models.dropout import Dropout
from dssm_core.models.towers.blocks import SequenceUser, no_histories, stacked
from dssm_core.models.towers.linear import Sum
from dssm_core.models.towers.protocol import POOLING


class Sequence(BaseModel):
    """Blocks of causal self-attention and a feed-forward layer."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)
    ignores: ClassVar[tuple[str, ...]] = POOLING
    fixed_shapes: ClassVar[bool] = True
    user_only: ClassVar[tuple[str, ...]] = (
        "blocks",
        "heads",
        "expansion",
        "dropout",
        "embedding_dropout",
    )
    blocks: Annotated[int, Field(ge=1)] = 2
    """Number of blocks."""
    heads: Annotated[int, Field(ge=1)] = 2
    """Number of attention heads; it must divide features.id_dim."""
    expansion: Annotated[float, Field(gt=0)] = 2.0
    """Width of the feed-forward layers as a multiple of features.id_dim."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.2
    """Share of each layer's output that is zeroed in training. Attention weights have no dropout,
    because the fused kernels do not support it."""
    embedding_dropout: Annotated[float, Field(ge=0, lt=1)] = 0.3
    """Share of the embedded history that is zeroed in training."""

    def problems(self, config: Config) -> Iterator[str]:
        """See no_histories; heads that do not divide the width."""
        yield from no_histories(config)
        width = config.features.id_dim
        if width % self.heads:
            yield (
                f"tower.heads {self.heads} does not divide features.id_dim {width},"
                " the width it works in"
            )

    def user(self, history: History, width: int, field_dims: list[int], dim: int) -> nn.Module:
        """See Tower. Raises ValueError if the heads do not divide the width."""
        layers = stacked(
            self.blocks,
            lambda: _Attention(width, self.heads, self.dropout),
            width,
            self.expansion,
            self.dropout,
        )
        positions = torch.randn(history.length, width) * 0.02
        return SequenceUser(layers, positions, width, field_dims, dim, self.embedding_dropout)

    def item(self, field_dims: list[int], dim: int) -> nn.Module:
        """See Tower."""
        return Sum(field_dims, dim)


class _Attention(nn.Module):
    """x [B, L, E] → its update [B, L, E]; a place sees itself and those before it. Padding comes
    after, so needs no mask.
    """

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        if width % heads:
            raise ValueError(f"{heads} heads do not divide a width of {width}")
        self.heads, self.norm, self.dropout = heads, nn.LayerNorm(width), Dropout(dropout)
        self.inputs, self.output = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x: Tensor, held: Tensor) -> Tensor:
        split = (
            self.inputs(self.norm(x)).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        )  # [3, B, heads, L, E / heads]
        mixed = scaled_dot_product_attention(split[0], split[1], split[2], is_causal=True)
        return torch.as_tensor(self.dropout(self.output(mixed.transpose(1, 2).flatten(2))))
