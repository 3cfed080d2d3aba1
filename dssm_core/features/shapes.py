"""Fixed shapes: tensors whose size does not depend on values.

On a GPU a size that depends on values makes the CPU wait for the result, a size that is new needs
new plans and kernels, and a step whose sizes change cannot be captured in a CUDA graph. Tensors are
therefore filled up to one of a few sizes. On a CPU a shape costs nothing and a padded row does, so
that nothing is filled up there.
"""

from __future__ import annotations

import torch
from torch import Tensor


def fixed(device: torch.device) -> bool:
    """Whether shapes are fixed on this device."""
    return device.type == "cuda"


def rounded_up(count: int, steps: int = 4) -> int:
    """The smallest size >= count out of `steps` sizes in each octave: with 4, at most a quarter
    more.
    """
    octave = max(1, count - 1).bit_length()
    step = max(1, (1 << octave - 1) // steps)
    return -(-count // step) * step


def distinct(codes: Tensor, most: int) -> tuple[Tensor, Tensor]:
    """The distinct codes [d], ascending, and the place of each code among them.

    codes: int64 of any shape, from 0 to `most` - 1. With fixed shapes d is the smaller of `most`
    and the number of codes, and 0 fills the rest.
    """
    if not fixed(codes.device):
        return _distinct_values(codes, most)
    ordered, order = codes.flatten().sort()
    new = (ordered[1:] != ordered[:-1]).cumsum(0)
    place = torch.cat([torch.zeros_like(ordered[:1]), new])
    values = ordered.new_zeros(min(most, len(ordered))).scatter(0, place, ordered)
    return values, torch.empty_like(place).scatter(0, order, place).view(codes.shape)


def _distinct_values(codes: Tensor, most: int) -> tuple[Tensor, Tensor]:
    """The distinct codes and the place of each code, without padding. Many codes are marked in a
    table of `most` codes, which is faster than to sort them.
    """
    if most > codes.numel():
        values, place = codes.unique(return_inverse=True)
        return values, place
    held = torch.zeros(most, dtype=torch.bool, device=codes.device)
    held[codes] = True
    return held.nonzero().squeeze(1), (held.cumsum(0) - 1)[codes]
