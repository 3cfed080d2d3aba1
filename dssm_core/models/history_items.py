"""The vector of an item in a history: the embedding of its id, a linear map of its columns, or the
sum of both.
"""

from __future__ import annotations

from typing import TypeVar

import torch
from torch import Tensor, cat, nn

from dssm_core.config import Features
from dssm_core.features.inputs import ColumnTable
from dssm_core.features.schema import Column, TowerColumns, VectorColumn
from dssm_core.features.shapes import distinct
from dssm_core.models.fields import Fields

C = TypeVar("C", Column, VectorColumn)


class HistoryItems(nn.Module):
    """Item codes [...] → [..., features.id_dim], zeros for code 0.

    The embeddings and the maps of vectors are those of the item tower (`borrowed`), so that what is
    learned about a column's value counts on both sides.
    """

    def __init__(
        self,
        features: Features,
        ids: nn.Embedding,
        columns: TowerColumns,
        borrowed: dict[str, nn.Module],
        items: ColumnTable | None,
    ) -> None:
        """items: the items' own columns, needed with features.history.fields. Raises ValueError
        without them.
        """
        super().__init__()
        # A dict hides the module: the ids are a parameter of the two towers, not of this module.
        self._ids = {"ids": ids} if features.item_ids else {}
        self._width = features.id_dim
        self._items = items  # not a buffer: the model's folder already holds this table once
        self.fields = None
        self.project = None
        if features.history.fields:
            if items is None:
                raise ValueError("features.history.fields needs the table of items' columns")
            self.fields = Fields(own_columns(columns, items), borrowed)
            self.project = nn.Linear(sum(self.fields.dims), features.id_dim, bias=False)

    def forward(self, codes: Tensor) -> Tensor:
        """codes: [...] int64, 0 = no item → [..., width]."""
        parts: list[Tensor] = [ids(codes) for ids in self._ids.values()]
        if self.fields is not None and self.project is not None and self._items is not None:
            table = self._items
            items, row = distinct(codes, len(table.categorical))
            fields = self.fields(table.categorical[items], table.multi[items], table.numeric[items])
            projected = self.project(cat(fields, dim=-1)).float()
            # index_select: its gradient is summed in a fixed order.
            projected = projected.index_select(0, row.flatten())
            parts.append(projected.view(*codes.shape, -1))
        if not parts:  # nothing distinguishes items, and there are no histories
            return torch.zeros(*codes.shape, self._width, device=codes.device)
        out: Tensor = sum(parts[1:], start=parts[0])
        return out


def own_columns(columns: TowerColumns, items: ColumnTable) -> TowerColumns:
    """The item tower's columns without activity and audience, each with its table or map in the
    item tower.
    """
    return TowerColumns(
        categorical=tuple(map(_borrowing, columns.categorical)),
        multi=tuple(map(_borrowing, columns.multi[: items.multi.shape[1]])),
        numeric=items.numeric.shape[1] - sum(columns.widths),
        vectors=tuple(map(_borrowing, columns.vectors)),
    )


def _borrowing(column: C) -> C:
    return column.model_copy(update={"shares": column.shares or column.column})
