"""The model: a user tower and an item tower over shared item-id embeddings, compared by cosine. No loss inside."""

from __future__ import annotations

import math
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict
from torch import Tensor, nn
from torch.nn.functional import normalize

from dssm_core import families
from dssm_core.config import Config
from dssm_core.features import ItemInputs, UserInputs
from dssm_core.towers import TOWERS


class Column(BaseModel):
    """A categorical or multi-valued column: rows of its embedding table (unknown included) and their width."""

    model_config = ConfigDict(frozen=True)
    column: str
    size: int
    dim: int


class Side(BaseModel):
    """What one tower sees beside ids and history."""

    model_config = ConfigDict(frozen=True)
    categorical: tuple[Column, ...]
    multi: tuple[Column, ...]
    numeric: int


class Schema(BaseModel):
    """Sizes that the data gave the model; with the config it fixes every parameter's shape."""

    model_config = ConfigDict(frozen=True)
    items: int
    user: Side
    item: Side


class TwoTower(nn.Module):
    """`users` and `items` give unit vectors of config.model.dim; logits are their dot product over `temperature`."""

    def __init__(self, config: Config, schema: Schema) -> None:
        super().__init__()
        width = config.features.id_dim
        self.decay = config.features.history.decay
        self.item_id = _embedding(schema.items, width)
        self.user_columns, user_dims = _columns(schema.user)
        self.item_columns, item_dims = _columns(schema.item)
        tower = families.build(TOWERS, config.tower)
        history = [width, width] if config.features.history.length else []
        self.user_tower = tower.build([*history, *user_dims], config.model.dim)
        self.item_tower = tower.build([width, *item_dims], config.model.dim)
        self.log_temperature = nn.Parameter(torch.tensor(math.log(config.model.temperature)), requires_grad=config.model.learn_temperature)

    @property
    def temperature(self) -> Tensor:
        """What similarities are divided by. → []."""
        return self.log_temperature.exp()

    def users(self, inputs: UserInputs) -> Tensor:
        """Unit vectors of users. → [B, dim]."""
        history = _pooled(self.item_id(inputs.history), inputs.history, self.decay) if inputs.history.shape[1] else []
        return normalize(self.user_tower([*history, *_fields(self.user_columns, inputs)]), dim=1)

    def items(self, inputs: ItemInputs) -> Tensor:
        """Unit vectors of items. → [N, dim]."""
        return normalize(self.item_tower([self.item_id(inputs.item), *_fields(self.item_columns, inputs)]), dim=1)


def _pooled(embedded: Tensor, codes: Tensor, decay: float) -> list[Tensor]:
    """Mean and recency-decayed mean of a history. embedded: [B, L, E]; codes: [B, L], newest first → 2 x [B, E]."""
    held = (codes > 0).to(embedded.dtype)
    fading = held * decay ** torch.arange(codes.shape[1], device=codes.device, dtype=embedded.dtype)
    return [_weighted_mean(embedded, weights) for weights in (held, fading)]


def _weighted_mean(embedded: Tensor, weights: Tensor) -> Tensor:
    """embedded: [B, L, E]; weights: [B, L] → [B, E], zeros where no weight is."""
    return torch.einsum("ble,bl->be", embedded, weights) / weights.sum(1, keepdim=True).clamp(min=1e-6)


def _embedding(size: int, dim: int) -> nn.Embedding:
    table = nn.Embedding(size, dim, padding_idx=0)  # the unknown stays at zero
    nn.init.normal_(table.weight, std=0.05)
    with torch.no_grad():
        table.weight[0] = 0
    return table


def _columns(side: Side) -> tuple[nn.ModuleDict, list[int]]:
    columns = {
        "categorical": nn.ModuleList(_embedding(column.size, column.dim) for column in side.categorical),
        "multi": nn.ModuleList(_embedding(column.size, column.dim) for column in side.multi),
    }
    return nn.ModuleDict(columns), [column.dim for column in (*side.categorical, *side.multi)] + [side.numeric]


def _fields(columns: Any, inputs: UserInputs | ItemInputs) -> list[Tensor]:
    """A field for each column, then all numerics as one."""
    single = [table(inputs.categorical[:, place]) for place, table in enumerate(columns["categorical"])]
    several = [
        _weighted_mean(table(codes), (codes > 0).float())
        for place, table in enumerate(columns["multi"])
        for codes in [inputs.multi[:, place]]
    ]
    return [*single, *several, inputs.numeric]
