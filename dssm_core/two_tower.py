"""The model: a user tower and an item tower over shared item-id embeddings, compared by cosine. No loss inside."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from dssm_core import families
from dssm_core.config import Config
from dssm_core.features import ItemInputs, UserInputs
from dssm_core.fields import Fields, Schema, embedding, weighted_mean
from dssm_core.towers import TOWERS


class TwoTower(nn.Module):
    """`users` and `items` give unit vectors of config.model.dim; logits are their dot product over `temperature`."""

    def __init__(self, config: Config, schema: Schema) -> None:
        super().__init__()
        width = config.features.id_dim
        self.decay = config.features.history.decay
        self.item_id = embedding(schema.items, width)
        self.item_fields = Fields(schema.item)
        self.user_fields = Fields(schema.user, {"item_id": self.item_id, **self.item_fields.lendable()})
        tower = families.build(TOWERS, config.tower)
        history = [width, width] if config.features.history.length else []
        self.user_tower = tower.build([*history, *self.user_fields.dims], config.model.dim)
        self.item_tower = tower.build([width, *self.item_fields.dims], config.model.dim)
        self.log_temperature = nn.Parameter(torch.tensor(math.log(config.model.temperature)), requires_grad=config.model.learn_temperature)

    @property
    def temperature(self) -> Tensor:
        """What similarities are divided by. → []."""
        return self.log_temperature.exp()

    def users(self, inputs: UserInputs) -> Tensor:
        """Unit vectors of users. → [B, dim]."""
        history = _pooled(self.item_id(inputs.history), inputs.history, self.decay) if inputs.history.shape[1] else []
        static = self.user_fields(inputs.categorical, inputs.multi, inputs.numeric)
        return normalize(self.user_tower([*history, *static]), dim=1)

    def items(self, inputs: ItemInputs) -> Tensor:
        """Unit vectors of items. → [N, dim]."""
        return normalize(
            self.item_tower([self.item_id(inputs.item), *self.item_fields(inputs.categorical, inputs.multi, inputs.numeric)]), dim=1
        )


def _pooled(embedded: Tensor, codes: Tensor, decay: float) -> list[Tensor]:
    """Mean and recency-decayed mean of a history. embedded: [B, L, E]; codes: [B, L], newest first → 2 x [B, E]."""
    held = (codes > 0).to(embedded.dtype)
    fading = held * decay ** torch.arange(codes.shape[1], device=codes.device, dtype=embedded.dtype)
    return [weighted_mean(embedded, weights) for weights in (held, fading)]
