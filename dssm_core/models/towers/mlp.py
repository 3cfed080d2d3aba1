"""The DSSM tower: all fields side by side through a multi-layer perceptron (Huang et al. 2013)."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import BaseModel, ConfigDict, Field
from torch import nn

from dssm_core.config import History
from dssm_core.models.pooling import Pools
from dssm_core.models.towers.protocol import Concatenated, Pooled, perceptron


class Mlp(BaseModel):
    """All fields side by side through a multi-layer perceptron with ReLU."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)
    ignores: ClassVar[tuple[str, ...]] = ()
    fixed_shapes: ClassVar[bool] = True
    user_only: ClassVar[tuple[str, ...]] = ()
    hidden: tuple[Annotated[int, Field(ge=1)], ...] = (128,)
    """Number of units of each hidden layer."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of the units that is zeroed in training."""

    def user(self, history: History, width: int, field_dims: list[int], dim: int) -> nn.Module:
        """See Tower."""
        pools = Pools(history, width)
        return Pooled(pools, self.item([*pools.dims, *field_dims], dim))

    def item(self, field_dims: list[int], dim: int) -> nn.Module:
        """See Tower."""
        return Concatenated(perceptron(sum(field_dims), self.hidden, dim, self.dropout))
