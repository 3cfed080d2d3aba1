"""No hidden layer: the sum of every field's own projection, which is matrix factorisation with side
features.

With a user id and a mean-pooled history it is SimpleX (Mao et al. 2021); the item side serves the
sequence towers too.
"""

from __future__ import annotations

from typing import ClassVar

from pydantic import BaseModel, ConfigDict
from torch import Tensor, nn

from dssm_core.config import History
from dssm_core.models.pooling import Pools
from dssm_core.models.towers.protocol import Pooled


class LinearTower(BaseModel):
    """A linear map of all fields. No settings. An item id of the model's own width is taken as it
    is, not projected.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)
    ignores: ClassVar[tuple[str, ...]] = ()
    fixed_shapes: ClassVar[bool] = True
    user_only: ClassVar[tuple[str, ...]] = ()

    def user(self, history: History, width: int, field_dims: list[int], dim: int) -> nn.Module:
        """See Tower."""
        pools = Pools(history, width)
        return Pooled(pools, Sum([*pools.dims, *field_dims], dim))

    def item(self, field_dims: list[int], dim: int) -> nn.Module:
        """See Tower."""
        return Sum(field_dims, dim)


class Sum(nn.Module):
    """fields, each [..., field_dims[i]] → [..., dim]. A first field of width dim is used as is."""

    def __init__(self, field_dims: list[int], dim: int) -> None:
        super().__init__()
        self.projections = nn.ModuleList(
            nn.Identity() if place == 0 and width == dim else nn.Linear(width, dim, bias=False)
            for place, width in enumerate(field_dims)
        )

    def forward(self, fields: list[Tensor]) -> Tensor:
        """See the class."""
        projected = [
            project(field) for project, field in zip(self.projections, fields, strict=True)
        ]
        total: Tensor = sum(projected[1:], start=projected[0])
        return total
