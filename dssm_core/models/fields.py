"""Static inputs as embedded fields: what a tower gets of a user or an item beside ids and history."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import cast

import torch
from torch import Tensor, nn

from dssm_core.config import Pooling
from dssm_core.features.schema import TowerColumns

INIT_STD = 0.05  # of a new table's values; features.init_std rescales a model's


class Fields(nn.Module):
    """A field for each categorical and each multi-valued column, then all numerics as one, if there
    are any.

    lent: tables of other modules, by the name that a column's `shares` says; they remain those
    modules' parameters.
    """

    def __init__(
        self, side: TowerColumns, lent: Mapping[str, nn.Embedding] = MappingProxyType({})
    ) -> None:
        super().__init__()
        self.side = side
        self._lent = dict(
            lent
        )  # in a dict: a second registration would save and count its weights twice
        self._columns = (*side.categorical, *side.multi)
        self._own = [place for place, column in enumerate(self._columns) if column.shares is None]
        self.tables = nn.ModuleList(
            embedding(self._columns[place].size, self._columns[place].dim) for place in self._own
        )
        self.pools = nn.ModuleList(_Pool(column.pooling, column.dim) for column in side.multi)

    @property
    def dims(self) -> list[int]:
        """The last dimension of each field."""
        return [column.dim for column in self._columns] + (
            [self.side.numeric] if self.side.numeric else []
        )

    def lendable(self) -> dict[str, nn.Embedding]:
        """This side's own tables by column name, the first where two columns have one name."""
        return {self._columns[place].column: self._table(place) for place in reversed(self._own)}

    def _table(self, place: int) -> nn.Embedding:
        """The embedding table of a column, categorical ones first."""
        lender = self._columns[place].shares
        table = self.tables[self._own.index(place)] if lender is None else self._lent[lender]
        return cast(nn.Embedding, table)

    def forward(self, categorical: Tensor, multi: Tensor, numeric: Tensor) -> list[Tensor]:
        """categorical: [..., columns]; multi: [..., columns, values], 0 = none; numeric: [..., F] →
        fields [..., dims[i]].
        """
        first = len(self.side.categorical)
        single = [self._table(place)(categorical[..., place]) for place in range(first)]
        several = []
        for place, (column, pool) in enumerate(zip(self.side.multi, self.pools, strict=True)):
            codes = multi[..., place, : column.values]
            several.append(pool(self._table(first + place)(codes), codes > 0))
        return [*single, *several, *([numeric] if self.side.numeric else [])]


def embedding(size: int, dim: int) -> nn.Embedding:
    """A table whose row 0, the unknown, is and stays zero."""
    table = nn.Embedding(size, dim, padding_idx=0)
    nn.init.normal_(table.weight, std=INIT_STD)
    with torch.no_grad():
        table.weight[0] = 0
    return table


class _Pool(nn.Module):
    """Several values as one field; zeros where a row holds none."""

    def __init__(self, pooling: Pooling, dim: int) -> None:
        super().__init__()
        self.pooling = pooling
        self.score = nn.Linear(dim, 1, bias=False) if pooling == "attention" else None

    def forward(self, embedded: Tensor, held: Tensor) -> Tensor:
        """embedded: [..., V, d]; held: [..., V], which values there are → [..., d]."""
        if self.score is None:
            return POOLS[self.pooling](embedded, held)
        return attention(embedded, held, self.score(embedded)[..., 0])


def weighted_mean(embedded: Tensor, weight: Tensor) -> Tensor:
    """embedded: [..., V, d]; weight: [..., V] → [..., d], zeros where no weight is."""
    return weighted_sum(embedded, weight) / weight.sum(-1, keepdim=True).clamp(min=1e-6)


def weighted_sum(embedded: Tensor, weight: Tensor) -> Tensor:
    """embedded: [..., V, d]; weight: [..., V] → [..., d]."""
    return torch.einsum("...vd,...v->...d", embedded, weight.to(embedded.dtype))


def largest(embedded: Tensor, held: Tensor) -> Tensor:
    """The largest held value of each dimension. embedded: [..., V, d]; held: [..., V] → [..., d],
    zeros where none is held.
    """
    top = embedded.masked_fill(~held[..., None], -torch.inf).amax(-2)
    return torch.where(held.any(-1, keepdim=True), top, 0)


def attention(embedded: Tensor, held: Tensor, score: Tensor) -> Tensor:
    """Mean weighted by the softmax of scores. embedded: [..., V, d]; held, score: [..., V] → [...,
    d], zeros where none is held.
    """
    kept = torch.where(held, score, torch.finfo(score.dtype).min)
    return weighted_sum(embedded, kept.softmax(-1) * held)


POOLS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "sum": weighted_sum,
    "mean": lambda embedded, held: weighted_mean(embedded, held.to(embedded.dtype)),
    "max": largest,
}
