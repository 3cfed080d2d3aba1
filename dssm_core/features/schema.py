"""Sizes of the model that depend on the data: its columns, and the rows and widths of their
embedding tables.
"""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict

from dssm_core.config import Pooling


class Column(BaseModel):
    """A categorical or multi-valued column.

    size: rows of its embedding table, code 0 included. dim: width of the table. values: maximum
    number of values in a row. pooling: how several values become one field. shares: the column
    whose table it uses.
    """

    model_config = ConfigDict(frozen=True)
    column: str
    size: int
    dim: int
    values: int = 1
    pooling: Pooling = "mean"
    shares: str | None = None


class VectorColumn(BaseModel):
    """A column of vectors.

    width: length of a vector. dim: length of what the linear map of the tower makes of it, 0 if the
    vector is taken as it is. shares: the column whose map it uses.
    """

    model_config = ConfigDict(frozen=True)
    column: str
    width: int
    dim: int
    shares: str | None = None


class TowerColumns(BaseModel):
    """The columns of one tower, without ids and history.

    vectors: the numbers of their vectors come first among the numbers of a row, in this order.
    numeric: the count of the other numbers.
    """

    model_config = ConfigDict(frozen=True)
    categorical: tuple[Column, ...]
    multi: tuple[Column, ...]
    numeric: int
    vectors: tuple[VectorColumn, ...] = ()

    @property
    def widths(self) -> list[int]:
        """The length of each vector."""
        return [vector.width for vector in self.vectors]


class Schema(BaseModel):
    """Sizes from the data; with the config they define the shape of every parameter.

    items, users: rows of the tables of id embeddings, code 0 included. Codes from `items` on are
    items of the catalogue without a positive in train, which have the unknown id.
    """

    model_config = ConfigDict(frozen=True)
    items: int
    users: int
    user: TowerColumns
    item: TowerColumns

    def lends(self, column: str) -> bool:
        """Whether another column uses this one's embedding table."""
        return any(
            other.shares == column
            for side in (self.user, self.item)
            for other in (*side.categorical, *side.multi)
        )
