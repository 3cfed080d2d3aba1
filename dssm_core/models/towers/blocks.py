"""What the sequence towers share: residual blocks over a history, then a projection beside the
user's fields.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from dssm_core.config import Config
from dssm_core.models.dropout import Dropout
from dssm_core.models.pooling import newest
from dssm_core.models.towers.linear import Sum


class SequenceUser(nn.Module):
    """A user side of residual layers over the whole history. See Tower.user.

    Where the history's width is the model's, what the layers give is added to the fields'
    projections as it is: users then live in the space of the items that they start from.

    layers: each (x [B, L, E], held [B, L]) → an update [B, L, E]. positions: [longest, E], added by
    place, or None.
    dropout: share of the embedded history that is zeroed in training.
    """

    def __init__(
        self,
        layers: list[nn.Module],
        positions: Tensor | None,
        width: int,
        field_dims: list[int],
        dim: int,
        dropout: float,
    ) -> None:
        super().__init__()
        self.layers, self.dropout = nn.ModuleList(layers), Dropout(dropout)
        self.positions = None if positions is None else nn.Parameter(positions)
        self.first, self.last, self.head = (
            nn.LayerNorm(width),
            nn.LayerNorm(width),
            Sum([width, *field_dims], dim),
        )

    def forward(self, history: Tensor, held: Tensor, fields: list[Tensor], every: bool) -> Tensor:
        """See Tower.user."""
        x = self.first(history)
        x = self.dropout(x if self.positions is None else x + self.positions[: history.shape[1]])
        for layer in self.layers:
            x = x + layer(x, held)
        x = self.last(x if every else newest(x, held))
        out: Tensor = self.head([x, *fields])
        return out


def stacked(
    blocks: int, mixing: Callable[[], nn.Module], width: int, expansion: float, dropout: float
) -> list[nn.Module]:
    """`blocks` times a layer that mixes places, as `mixing` makes one, and a feed-forward layer."""
    return [
        layer for _ in range(blocks) for layer in (mixing(), FeedForward(width, expansion, dropout))
    ]


class FeedForward(nn.Module):
    """x [B, L, E] → its update [B, L, E], place by place, gated (Shazeer 2020, SwiGLU)."""

    def __init__(self, width: int, expansion: float, dropout: float) -> None:
        super().__init__()
        hidden = int(width * expansion)
        self.norm, self.dropout = nn.LayerNorm(width), Dropout(dropout)
        self.inputs, self.output = nn.Linear(width, 2 * hidden), nn.Linear(hidden, width)

    def forward(self, x: Tensor, held: Tensor) -> Tensor:
        """See the class."""
        value, gate = self.inputs(self.norm(x)).chunk(2, -1)
        return torch.as_tensor(self.dropout(self.output(value * nn.functional.silu(gate))))


def no_histories(config: Config) -> Iterator[str]:
    """What is wrong with a sequence tower if the config has no histories."""
    if not config.features.history.length:
        yield (
            f"tower {config.tower.kind!r} reads histories, but features.history.length is 0:"
            " give it 20 or more, or take tower mlp"
        )
