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


class TowerColumns(BaseModel):
    """The columns of one tower, without ids and history."""

    model_config = ConfigDict(frozen=True)
    categorical: tuple[Column, ...]
    multi: tuple[Column, ...]
    numeric: int


class Schema(BaseModel):
    """Sizes from the data; with the config they define the shape of every parameter."""

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
