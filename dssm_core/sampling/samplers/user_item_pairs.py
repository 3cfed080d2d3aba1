"""Sets of (user, item) pairs as sorted keys, for samplers whose candidates depend on the user."""

from __future__ import annotations

import torch
from torch import Tensor


def pair_keys(user: Tensor, item: Tensor, codes: int) -> Tensor:
    """The distinct pairs as sorted keys user * codes + item. user, item: [n] → [pairs]. codes:
    items and the unknown.
    """
    keys: Tensor = torch.unique(user * codes + item)
    return keys


def place_of(keys: Tensor, wanted: Tensor) -> tuple[Tensor, Tensor]:
    """The position of each wanted key among the sorted keys, and whether it is there.

    wanted: any shape → two tensors of the same shape.
    """
    if not len(keys):
        return torch.zeros_like(wanted), torch.zeros_like(wanted, dtype=torch.bool)
    place = torch.searchsorted(keys, wanted).clamp(max=len(keys) - 1)
    return place, keys[place] == wanted


def draw_from_lists(
    items: Tensor,
    begin: Tensor,
    length: Tensor,
    known: Tensor,
    count: int,
    generator: torch.Generator,
) -> Tensor:
    """Draw uniformly from items[begin : begin + length] of each event, or from codes 1..known if
    that list is empty.

    begin, length: [B]; known: [1] → [B, count].
    """
    even = torch.rand(
        len(begin), count, generator=generator, device=generator.device, dtype=torch.double
    )
    anything = (even * known).long() + 1
    if not len(items):
        return anything
    listed = items[(begin[:, None] + (even * length[:, None]).long()).clamp(max=len(items) - 1)]
    return torch.where(length[:, None] > 0, listed, anything)
