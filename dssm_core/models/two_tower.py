"""The model: a user tower and an item tower over shared item-id embeddings.

Vectors are compared by cosine or dot product. The model has no loss.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from dssm_core import families
from dssm_core.columns import ITEM
from dssm_core.config import Config
from dssm_core.families import TOWERS
from dssm_core.features.inputs import ColumnTable, ItemInputs, UserInputs
from dssm_core.features.schema import Schema
from dssm_core.models.fields import INIT_STD, Fields, embedding, known
from dssm_core.models.history_items import HistoryItems


class TwoTower(nn.Module):
    """Embeds users and items as vectors of config.model.dim.

    With similarity `cosine`, vectors have length 1. Logits are dot products divided by
    `temperature`. Users and items whose codes are not in the table of id embeddings have the
    unknown id. items: the items' own columns on the model's device, needed with
    features.history.fields.
    """

    def __init__(self, config: Config, schema: Schema, items: ColumnTable | None = None) -> None:
        super().__init__()
        features = config.features
        width = features.id_dim
        self.cosine = config.model.similarity == "cosine"
        self.item_ids = features.item_ids
        has_item_ids = self.item_ids or schema.lends(ITEM)
        self.item_id = embedding(schema.items if has_item_ids else 1, width)
        self.user_id = (
            embedding(schema.users, features.user_id_dim) if features.user_id_dim else None
        )
        self.item_fields = Fields(schema.item, {ITEM: self.item_id})
        shared = {ITEM: self.item_id, **self.item_fields.own_modules()}
        self.user_fields = Fields(schema.user, shared)
        self.history_items = HistoryItems(features, self.item_id, schema.item, shared, items)
        tower = families.build(TOWERS, config.tower)
        item_tower = families.build(TOWERS, config.item_tower) if config.item_tower else tower
        user_dims = self.user_fields.dims
        item_dims = self.item_fields.dims
        if self.user_id is not None:
            user_dims = [features.user_id_dim, *user_dims]
        if self.item_ids:
            item_dims = [width, *item_dims]
        self.user_tower = tower.user(features.history, width, user_dims, config.model.dim)
        self.item_tower = item_tower.item(item_dims, config.model.dim)
        for module in self.modules():
            if isinstance(module, nn.Embedding):
                module.weight.data.mul_(features.init_std / INIT_STD)
        self.log_temperature = nn.Parameter(
            torch.tensor(math.log(config.model.temperature)),
            requires_grad=config.model.learn_temperature,
        )

    @property
    def temperature(self) -> Tensor:
        """What similarities are divided by. → []."""
        return self.log_temperature.exp()

    def users(self, inputs: UserInputs, every: bool = False) -> Tensor:
        """Vectors of users, [B, dim]; with `every`, at each position of their histories, [B, L,
        dim].
        """
        fields = self.user_fields(inputs.categorical, inputs.multi, inputs.numeric)
        if self.user_id is not None:
            ids = self.user_id(known(inputs.user, self.user_id))
            if every:
                ids = ids[:, None].expand(*inputs.history.shape, -1)
            fields = [ids, *fields]
        history = self.history_items(inputs.history)
        return self._normalised(self.user_tower(history, inputs.history > 0, fields, every))

    def items(self, inputs: ItemInputs) -> Tensor:
        """Vectors of items. → [N, dim]."""
        fields = self.item_fields(inputs.categorical, inputs.multi, inputs.numeric)
        if self.item_ids:
            fields = [self.item_id(known(inputs.item, self.item_id)), *fields]
        return self._normalised(self.item_tower(fields))

    def _normalised(self, vectors: Tensor) -> Tensor:
        return normalize(vectors, dim=-1) if self.cosine else vectors
