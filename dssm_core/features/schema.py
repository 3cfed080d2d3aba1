"""Sizes that the data gives the model: its columns, the rows of their embedding tables and their
widths.
"""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict

from dssm_core.config import Pooling


class Column(BaseModel):
    """A categorical or multi-valued column: rows of its embedding table (unknown included) and
    their width.

    values: most values a row; pooling: of several values into one field; shares: the column whose
    table it uses.
    """

    model_config = ConfigDict(frozen=True)
    column: str
    size: int
    dim: int
    values: int = 1
    pooling: Pooling = "mean"
    shares: str | None = None


class TowerColumns(BaseModel):
    """What one tower sees beside ids and history."""

    model_config = ConfigDict(frozen=True)
    categorical: tuple[Column, ...]
    multi: tuple[Column, ...]
    numeric: int


class Schema(BaseModel):
    """Sizes that the data gave the model; with the config it fixes every parameter's shape."""

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
