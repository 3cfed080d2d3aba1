"""What a history shows of each item: its id's embedding, a linear map of its columns, or the sum of
both.
"""

from __future__ import annotations

from torch import Tensor, cat, nn

from dssm_core.config import Features
from dssm_core.features.inputs import ColumnTable
from dssm_core.features.schema import TowerColumns
from dssm_core.models.fields import Fields


class HistoryItems(nn.Module):
    """Item codes [...] → [..., features.id_dim], zeros where there is no item.

    The columns' embeddings are those of the item tower, lent: what is learned of an interest counts
    on both sides.
    """

    def __init__(
        self,
        features: Features,
        ids: nn.Embedding,
        side: TowerColumns,
        lent: dict[str, nn.Embedding],
        items: ColumnTable | None,
    ) -> None:
        super().__init__()
        self._lent = (
            {"ids": ids} if features.item_ids else {}
        )  # in a dict: they are the two towers' parameter, not this module's
        self._items = items  # no buffer: it is data, which the folder of the model holds once
        self.fields = self.project = None
        if features.history.fields:
            if items is None:
                raise ValueError("features.history.fields needs the table of items' columns")
            self.fields = Fields(own_columns(side, items), lent)
            self.project = nn.Linear(sum(self.fields.dims), features.id_dim, bias=False)

    def forward(self, codes: Tensor) -> Tensor:
        """codes: [...] int64, 0 = none → [..., width]."""
        parts = [ids(codes) for ids in self._lent.values()]
        if self.fields is not None and self.project is not None and self._items is not None:
            distinct, place = codes.unique(return_inverse=True)
            table = self._items
            fields = self.fields(
                table.categorical[distinct], table.multi[distinct], table.numeric[distinct]
            )
            told = (
                self.project(cat(fields, dim=-1)).float().index_select(0, place.flatten())
            )  # its gradient is summed in one order
            parts.append(told.view(*codes.shape, -1))
        out: Tensor = sum(parts[1:], start=parts[0])
        return out


def own_columns(side: TowerColumns, items: ColumnTable) -> TowerColumns:
    """The item tower's columns that are the items' own, without activity and audience, each using
    its table there.
    """
    several = side.multi[: items.multi.shape[1]]
    borrowed = [
        tuple(
            column.model_copy(update={"shares": column.shares or column.column})
            for column in columns
        )
        for columns in (side.categorical, several)
    ]
    return TowerColumns(categorical=borrowed[0], multi=borrowed[1], numeric=items.numeric.shape[1])
