"""Rows sorted by (code, time), and how many rows of a code are before a moment."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Self

import torch
from torch import Tensor


@dataclass(frozen=True)
class TimeKeys:
    """Sorted keys of (code, time). A key holds the rank of its time among the distinct times, so it
    fits into an int64 however far apart the times are.

    times: [T] int64 ms, distinct and ascending. keys: [n] int64, code * (T + 1) + rank, ascending.
    """

    times: Tensor
    keys: Tensor

    @classmethod
    def of(cls, code: Tensor, time: Tensor) -> tuple[Self, Tensor]:
        """The keys of rows, and the rows in their order: equal keys keep theirs. code, time: [n]"""
        times, rank = torch.unique(time, return_inverse=True)
        keys, order = (code * (len(times) + 1) + rank).sort(stable=True)
        return cls(times, keys), order

    def to(self, device: torch.device | str) -> Self:
        """The same keys on another device."""
        return type(self)(*(getattr(self, part.name).to(device) for part in fields(self)))

    def begin(self, code: Tensor) -> Tensor:
        """Number of keys below those of a code: where its rows begin. [n] → [n]"""
        return torch.searchsorted(self.keys, code.contiguous() * (len(self.times) + 1))

    def before(self, code: Tensor, moment: Tensor) -> Tensor:
        """Number of keys below (code, moment): where the code's rows before a moment (ms) end.
        2 x [n] → [n], or code [n, m] and moment [n, 1] → [n, m].
        """
        rank = torch.searchsorted(self.times, moment.contiguous())
        return torch.searchsorted(self.keys, code * (len(self.times) + 1) + rank)
