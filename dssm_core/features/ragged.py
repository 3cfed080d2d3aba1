"""Rows of unequal length, kept one after the other in one array."""

from __future__ import annotations

import torch
from torch import Tensor


def ranges(begin: Tensor, end: Tensor) -> tuple[Tensor, Tensor]:
    """Every number from begin to before end of each row, one row after the other. begin, end: [B] →
    row, number: 2 x [n].
    """
    counts = end - begin
    row = torch.repeat_interleave(torch.arange(len(counts), device=counts.device), counts)
    return row, torch.arange(len(row), device=row.device) - (counts.cumsum(0) - end)[row]
