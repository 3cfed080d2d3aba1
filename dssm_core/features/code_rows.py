"""The rows of a log by code and time: sorted in memory, or in parts into a mapped file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor

from dssm_core.aliases import Bools, Ints
from dssm_core.features.ragged import offsets
from dssm_core.features.tensors import create_tensors
from dssm_core.features.time_keys import TimeKeys


@dataclass(frozen=True)
class CodeRows:
    """The rows of a log sorted by (code, time), equal ones in the order of the log.

    keys: of the rows in that order. order: [n] integers, the row of each key. until: if only the
    first rows of the log count, the time (ms) at which the others begin, and the last row.
    """

    keys: TimeKeys
    order: Tensor
    until: tuple[int, int] | None = None

    @classmethod
    def of(cls, code: Tensor, time: Tensor) -> Self:
        """Sort rows in memory. code, time: [n]"""
        return cls(*TimeKeys.of(code, time))

    def to(self, device: torch.device | str) -> Self:
        """The same rows on another device."""
        return replace(self, keys=self.keys.to(device), order=self.order.to(device))

    def first(self, rows: int, end: int) -> Self:
        """The first rows of the log, which are those before a moment (ms)."""
        return replace(self, until=(end, rows - 1))

    def begin(self, code: Tensor) -> Tensor:
        """The place of each code's first row. [n] → [n]"""
        return self.keys.begin(code)

    def before(self, code: Tensor, moment: Tensor) -> Tensor:
        """The place after each code's last row before a moment (ms). 2 x [n] → [n]"""
        return self.keys.before(code, moment.clamp(max=self.until[0]) if self.until else moment)

    def rows(self, places: Tensor) -> Tensor:
        """The rows of the log at these places, int64, of the same shape. A place of a row that does
        not count gives another row.
        """
        rows = self.order[places].long()
        return rows.clamp(max=self.until[1]) if self.until else rows


def write_code_rows(
    file: Path, time: Tensor, codes: Mapping[str, Tensor], rows_at_once: int
) -> None:
    """Write the CodeRows of each array of codes, sorting so many rows at a time.

    time: [n] int64 ms, ascending; codes: [n] each, by name.
    """
    parts = [slice(first, first + rows_at_once) for first in range(0, len(time), rows_at_once)]
    ms = time.numpy()
    row = torch.int32 if len(ms) <= torch.iinfo(torch.int32).max else torch.int64
    n_times = sum(int(_changes(ms, part).sum()) for part in parts)
    shapes = {"times": (torch.int64, (n_times,))}
    for name in codes:
        shapes[f"{name}.keys"] = (torch.int64, ms.shape)
        shapes[f"{name}.order"] = (row, ms.shape)
    arrays = {name: tensor.numpy() for name, tensor in create_tensors(file, shapes).items()}
    ranks = np.zeros(1, np.int64)
    places = {name: _begins(code.numpy(), parts) for name, code in codes.items()}
    for part in parts:
        changes = _changes(ms, part)
        ranks = ranks[-1] + changes.cumsum() - (part.start == 0)
        arrays["times"][ranks[changes]] = ms[part][changes]
        for name, code in codes.items():
            order, place = _sorted_part(code.numpy()[part], places[name])
            keys = code.numpy()[part][order] * np.int64(n_times + 1) + ranks[order]
            arrays[f"{name}.keys"][place] = keys
            arrays[f"{name}.order"][place] = part.start + order


def load_code_rows(file: Path, *names: str) -> list[CodeRows]:
    """What `write_code_rows` wrote, mapped into memory."""
    tensors = load_file(file)
    return [
        CodeRows(TimeKeys(tensors["times"], tensors[f"{name}.keys"]), tensors[f"{name}.order"])
        for name in names
    ]


def _changes(time: Ints, part: slice) -> Bools:
    """Whether each row of a part has another time than the row before it. → [rows of the part]"""
    before = time[part.start - 1] if part.start else time[0] - 1
    return np.asarray(np.diff(time[part], prepend=before) != 0)


def _begins(code: Ints, parts: list[slice]) -> Ints:
    """The place of each code's first row. code: [n] → [codes]"""
    counts = np.zeros(max((int(code[part].max()) for part in parts), default=0) + 1, np.int64)
    for part in parts:
        counts += np.bincount(code[part], minlength=len(counts))
    return offsets(counts)[:-1]


def _sorted_part(code: Ints, places: Ints) -> tuple[Ints, Ints]:
    """The rows [p] of a part by code, and the place of each among all rows. `places` is moved to
    the first place after the part's rows, by code.
    """
    order = np.argsort(code, kind="stable")
    counts = np.bincount(code, minlength=len(places))
    within = np.arange(len(code)) - (counts.cumsum() - counts)[code[order]]
    place = places[code[order]] + within
    places += counts
    return order, place
