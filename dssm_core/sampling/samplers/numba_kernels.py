"""Loops without an equivalent array operation, compiled by Numba.

Import this module only in the function that calls a kernel: compiling takes seconds.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def moving_gaps(cell: Any, slots: int, step: float) -> Any:
    """Yi et al. 2019, algorithm 2: after each event, the moving average of its cell's gaps. cell:
    [n] → [n] float64.
    """
    last, gap, seen = np.zeros(slots, np.int64), np.zeros(slots), np.zeros(slots, np.int64)
    out = np.empty(len(cell))
    for now in range(len(cell)):
        at = cell[now]
        seen[at] += 1
        weight = max(step, 1.0 / seen[at])
        gap[at] += weight * (now + 1 - last[at] - gap[at])
        last[at] = now + 1
        out[now] = gap[at]
    return out


GOLDEN, ONE, TWO = (
    np.uint64(0x9E3779B97F4A7C15),
    np.uint64(0xBF58476D1CE4E5B9),
    np.uint64(0x94D049BB133111EB),
)
TO_UNIT = 1.0 / (1 << 53)
TRIES = 64  # rejections in a row before the draw is made by inversion instead


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _mixed(state: Any) -> Any:
    """Splitmix64 (Steele et al. 2014): 64 random bits from a state that grows by GOLDEN."""
    state = (state ^ (state >> np.uint64(30))) * ONE
    state = (state ^ (state >> np.uint64(27))) * TWO
    return state ^ (state >> np.uint64(31))


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _holds(sorted_items: Any, begin: int, end: int, item: int) -> bool:
    """Whether item is in sorted_items[begin:end]."""
    last = end
    while begin < end:
        middle = (begin + end) >> 1
        if sorted_items[middle] < item:
            begin = middle + 1
        else:
            end = middle
    return bool(begin < last and sorted_items[begin] == item)


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _from_rest(share: Any, taken: Any, begin: int, end: int, even: float) -> int:
    """One item of what is not taken, by inversion: where the running sum of shares passes even *
    its total.
    """
    total, last = 0.0, 0
    for sweep in range(2):
        at, held = begin, 0.0
        for cell in range(len(share)):
            if at < end and taken[at] == cell + 1:
                at += 1
                continue
            held += share[cell]
            if sweep and share[cell] > 0:
                last = cell + 1
                if held > even * total:
                    return last
        total = held
    return last


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def draw_unseen(
    user: Any,
    keep: Any,
    alias: Any,
    share: Any,
    of_user: Any,
    taken: Any,
    seed: int,
    first: int,
    out: Any,
) -> None:
    """Fill out [B, count] from an alias table over codes 1..N, without taken[of_user[u] : of_user[u
    + 1]] of each user u.

    first: number of the first row. The draws of a row depend on the seed and the number of the row,
    not on the thread that computes it.
    """
    for row in range(len(user)):
        begin, end = of_user[user[row]], of_user[user[row] + 1]
        state = _mixed(np.uint64(seed) ^ _mixed(np.uint64(first + row + 1) * GOLDEN))
        for place in range(out.shape[1]):
            for tried in range(TRIES + 1):
                state += GOLDEN
                even = np.float64(_mixed(state) >> np.uint64(11)) * TO_UNIT
                if tried == TRIES:
                    out[row, place] = _from_rest(share, taken, begin, end, even)
                    break
                at = even * len(keep)
                cell = int(at)
                if at - cell >= keep[cell]:
                    cell = alias[cell]
                if not _holds(taken, begin, end, cell + 1):
                    out[row, place] = cell + 1
                    break
