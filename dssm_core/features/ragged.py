"""Rows of unequal length, stored one after the other in one array."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from dssm_core.aliases import Ints


def offsets(counts: Ints) -> Ints:
    """Where each row begins, and the end of the last row. counts: [N] → [N + 1]"""
    return np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)


def positions(counts: Ints) -> Ints:
    """The position of each element in its row. counts: [N] → [sum of counts]"""
    ends = np.cumsum(counts)
    return np.asarray(np.arange(counts.sum()) - np.repeat(ends - counts, counts), dtype=np.int64)


def distinct(keys: Ints) -> Ints:
    """The distinct keys, ascending: `np.unique`, whose hash table is far slower than to sort.
    [n] → [m]
    """
    ordered = np.sort(keys)
    first = np.append(True, ordered[1:] != ordered[:-1])[: len(ordered)]
    return np.asarray(ordered[first])


def ranges(begin: Tensor, end: Tensor) -> tuple[Tensor, Tensor]:
    """All numbers from begin to end (excluded) of each row, one row after the other.

    begin, end: [B] → row and number of each, 2 x [n].
    """
    counts = end - begin
    row = torch.repeat_interleave(torch.arange(len(counts), device=counts.device), counts)
    return row, torch.arange(len(row), device=row.device) - (counts.cumsum(0) - end)[row]
