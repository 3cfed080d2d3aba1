"""Column values as embedded fields: the input of a tower beside ids and history."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import cast

import torch
from torch import Tensor, nn

from dssm_core.config import Pooling
from dssm_core.features.schema import TowerColumns

INIT_STD = 0.05  # of a new table's values; features.init_std rescales the tables of a model


class Fields(nn.Module):
    """One field for each categorical, each multi-valued and each vector column, then all numeric
    columns as one field, if there are any.

    borrowed: embedding tables, and linear maps of vectors, of other modules, by the name that a
    column's `shares` gives; they stay parameters of those modules.
    """

    def __init__(
        self, columns: TowerColumns, borrowed: Mapping[str, nn.Module] = MappingProxyType({})
    ) -> None:
        super().__init__()
        self.columns = columns
        # A dict hides the modules: registered here too, they would be saved and counted twice.
        self._borrowed = dict(borrowed)
        self._columns = (*columns.categorical, *columns.multi)
        self._own = [n for n, column in enumerate(self._columns) if column.shares is None]
        self.tables = nn.ModuleList(
            embedding(self._columns[n].size, self._columns[n].dim) for n in self._own
        )
        self.pools = nn.ModuleList(_Pool(column.pooling, column.dim) for column in columns.multi)
        # Without a bias, so that a missing vector, which is all zeros, is a field of zeros.
        self.maps = nn.ModuleDict(
            {
                str(n): nn.Linear(vector.width, vector.dim, bias=False)
                for n, vector in enumerate(columns.vectors)
                if vector.dim and vector.shares is None
            }
        )

    @property
    def dims(self) -> list[int]:
        """The last dimension of each field."""
        numeric = [self.columns.numeric] if self.columns.numeric else []
        vectors = [vector.dim or vector.width for vector in self.columns.vectors]
        return [column.dim for column in self._columns] + vectors + numeric

    def own_modules(self) -> dict[str, nn.Module]:
        """This module's tables and linear maps by column name, the first one if two columns have
        the same name.
        """
        maps = {self.columns.vectors[int(n)].column: part for n, part in self.maps.items()}
        return maps | {self._columns[n].column: self._table(n) for n in reversed(self._own)}

    def _table(self, number: int) -> nn.Embedding:
        """The embedding table of a column. Categorical columns are numbered first."""
        shares = self._columns[number].shares
        if shares is not None:
            return cast(nn.Embedding, self._borrowed[shares])
        return cast(nn.Embedding, self.tables[self._own.index(number)])

    def forward(self, categorical: Tensor, multi: Tensor, numeric: Tensor) -> list[Tensor]:
        """The fields, each [..., dims[i]].

        categorical: [..., columns] codes; multi: [..., columns, values] codes, 0 = no value;
        numeric: [..., F], the numbers of the vectors first.
        """
        first = len(self.columns.categorical)
        tables = [self._table(n) for n in range(len(self._columns))]
        fields = [
            table(known(categorical[..., n], table)) for n, table in enumerate(tables[:first])
        ]
        lists = zip(self.columns.multi, self.pools, tables[first:], strict=True)
        for n, (column, pool, table) in enumerate(lists):
            codes = known(multi[..., n, : column.values], table)
            fields.append(pool(table(codes), codes > 0))
        *vectors, numbers = numeric.split([*self.columns.widths, self.columns.numeric], dim=-1)
        fields += [self._mapped(n, vector) for n, vector in enumerate(vectors)]
        if self.columns.numeric:
            fields.append(numbers)
        return fields

    def _mapped(self, number: int, vector: Tensor) -> Tensor:
        """The field of a vector column. vector: [..., width] → [..., dim], or as it is."""
        column = self.columns.vectors[number]
        if not column.dim:
            return vector
        linear = self.maps[str(number)] if column.shares is None else self._borrowed[column.shares]
        mapped: Tensor = linear(vector)
        return mapped


def embedding(size: int, dim: int) -> nn.Embedding:
    """An embedding table whose row 0, the unknown, is zero and stays zero."""
    table = nn.Embedding(size, dim, padding_idx=0)
    nn.init.normal_(table.weight, std=INIT_STD)
    with torch.no_grad():
        table.weight[0] = 0
    return table


def known(codes: Tensor, table: nn.Embedding) -> Tensor:
    """The codes that have a row in a table, and 0, the unknown one, for all others: the ids of
    items and users without a positive in train. [...] → [...]
    """
    return torch.where(codes < table.num_embeddings, codes, 0)


class _Pool(nn.Module):
    """Pools several values into one field, zeros for a row without values."""

    def __init__(self, pooling: Pooling, dim: int) -> None:
        super().__init__()
        self.pooling = pooling
        self.score = nn.Linear(dim, 1, bias=False) if pooling == "attention" else None

    def forward(self, embedded: Tensor, present: Tensor) -> Tensor:
        """embedded: [..., V, d]; present: [..., V], which values exist → [..., d]."""
        if self.score is None:
            return POOLS[self.pooling](embedded, present)
        return attention(embedded, present, self.score(embedded)[..., 0])


def weighted_mean(embedded: Tensor, weight: Tensor) -> Tensor:
    """embedded: [..., V, d]; weight: [..., V] → [..., d], zeros where all weights are 0."""
    return weighted_sum(embedded, weight) / weight.sum(-1, keepdim=True).clamp(min=1e-6)


def weighted_sum(embedded: Tensor, weight: Tensor) -> Tensor:
    """embedded: [..., V, d]; weight: [..., V] → [..., d]."""
    return torch.einsum("...vd,...v->...d", embedded, weight.to(embedded.dtype))


def largest(embedded: Tensor, present: Tensor) -> Tensor:
    """The maximum over the present values, by dimension.

    embedded: [..., V, d]; present: [..., V] → [..., d], zeros where no value is present.
    """
    top = embedded.masked_fill(~present[..., None], -torch.inf).amax(-2)
    return torch.where(present.any(-1, keepdim=True), top, 0)


def attention(embedded: Tensor, present: Tensor, score: Tensor) -> Tensor:
    """The mean weighted by the softmax of scores.

    embedded: [..., V, d]; present, score: [..., V] → [..., d], zeros where no value is present.
    """
    masked = torch.where(present, score, torch.finfo(score.dtype).min)
    return weighted_sum(embedded, masked.softmax(-1) * present)


POOLS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "sum": weighted_sum,
    "mean": lambda embedded, present: weighted_mean(embedded, present.to(embedded.dtype)),
    "max": largest,
}
