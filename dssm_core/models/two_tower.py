"""The model: a user tower and an item tower over shared item-id embeddings, compared by cosine or
dot product. No loss inside.
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
from dssm_core.models.fields import INIT_STD, Fields, embedding
from dssm_core.models.history_items import HistoryItems


class TwoTower(nn.Module):
    """`users` and `items` give vectors of config.model.dim (of length 1 where similarity is
    cosine); logits are their dot product over `temperature`. items: the items' own columns, on the
    model's device, for features.history.fields.
    """

    def __init__(self, config: Config, schema: Schema, items: ColumnTable | None = None) -> None:
        super().__init__()
        width, own = config.features.id_dim, config.features.user_id_dim
        self.cosine = config.model.similarity == "cosine"
        self.item_ids = config.features.item_ids
        self.item_id = embedding(schema.items if self.item_ids or schema.lends(ITEM) else 1, width)
        self.user_id = embedding(schema.users, own) if own else None
        self.item_fields = Fields(schema.item, {ITEM: self.item_id})
        lent = {ITEM: self.item_id, **self.item_fields.lendable()}
        self.user_fields = Fields(schema.user, lent)
        self.history_items = HistoryItems(config.features, self.item_id, schema.item, lent, items)
        tower = families.build(TOWERS, config.tower)
        item_tower = families.build(TOWERS, config.item_tower) if config.item_tower else tower
        user_dims = [own, *self.user_fields.dims] if own else self.user_fields.dims
        self.user_tower = tower.user(config.features.history, width, user_dims, config.model.dim)
        self.item_tower = item_tower.item(
            [*([width] if self.item_ids else []), *self.item_fields.dims], config.model.dim
        )
        for module in self.modules():
            if isinstance(module, nn.Embedding):
                module.weight.data.mul_(config.features.init_std / INIT_STD)
        self.log_temperature = nn.Parameter(
            torch.tensor(math.log(config.model.temperature)),
            requires_grad=config.model.learn_temperature,
        )

    @property
    def temperature(self) -> Tensor:
        """What similarities are divided by. → []."""
        return self.log_temperature.exp()

    def users(self, inputs: UserInputs, every: bool = False) -> Tensor:
        """Vectors of users, [B, dim]; with `every` one for each place of their histories, [B, L,
        dim].
        """
        fields = self.user_fields(inputs.categorical, inputs.multi, inputs.numeric)
        if self.user_id is not None:
            ids = self.user_id(inputs.user)
            fields = [ids[:, None].expand(*inputs.history.shape, -1) if every else ids, *fields]
        return self._finish(
            self.user_tower(self.history_items(inputs.history), inputs.history > 0, fields, every)
        )

    def items(self, inputs: ItemInputs) -> Tensor:
        """Vectors of items. → [N, dim]."""
        fields = self.item_fields(inputs.categorical, inputs.multi, inputs.numeric)
        ids = [self.item_id(inputs.item)] if self.item_ids else []
        return self._finish(self.item_tower([*ids, *fields]))

    def _finish(self, vectors: Tensor) -> Tensor:
        return normalize(vectors, dim=-1) if self.cosine else vectors
