"""What a tower is."""

from __future__ import annotations

from typing import Protocol

from torch import nn


class Tower(Protocol):
    """One side's network. The fields of a member are its settings."""

    def build(self, field_dims: list[int], dim: int) -> nn.Module:
        """A module from a list of fields, each [B, field_dims[i]], to [B, dim]. Normalising is not its business."""
        ...
