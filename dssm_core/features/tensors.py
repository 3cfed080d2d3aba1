"""Dataclasses of tensors as safetensors files: written atomically or mapped into memory, read
without unpickling.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from dataclasses import Field, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save
from torch import Tensor

from dssm_core.runs.files import write_atomically

ALIGNED = 8
# types in the header of a safetensors file
TYPE_NAMES = {torch.int64: "I64", torch.int32: "I32", torch.float32: "F32"}


def save_tensors(file: Path, tensors: dict[str, Tensor]) -> None:
    """Write tensors to a safetensors file, atomically. Raises ServiceError on a full disk; the
    library's own error is no OSError.
    """
    write_atomically(
        file, save({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()})
    )


def create_tensors(
    file: Path, shapes: Mapping[str, tuple[torch.dtype, tuple[int, ...]]]
) -> dict[str, Tensor]:
    """Create a safetensors file of zeros and map it into memory: what is written into the tensors
    is in the file.

    shapes: type and shape of each tensor. Raises OSError if the disk has no space for the file.
    """
    begin, header = 0, {}
    by_size = sorted(shapes.items(), key=lambda part: -part[1][0].itemsize)  # all are aligned then
    for name, (kind, shape) in by_size:
        end = begin + math.prod(shape) * kind.itemsize
        header[name] = {"dtype": TYPE_NAMES[kind], "shape": shape, "data_offsets": (begin, end)}
        begin = end
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % ALIGNED)
    with file.open("w+b") as opened:
        opened.write(len(text).to_bytes(8, "little") + text)
        first = opened.tell()
        # A write into a mapped file on a full disk would kill the process.
        os.posix_fallocate(opened.fileno(), 0, first + begin)
    data = torch.from_numpy(np.memmap(file, np.uint8, "r+"))[first:]
    return {
        name: data[slice(*header[name]["data_offsets"])].view(kind).reshape(shape)
        for name, (kind, shape) in shapes.items()
    }


def as_named(prefix: str, value: Any) -> dict[str, Tensor]:
    """The tensors of a dataclass by `prefix.field`, for safetensors, without `derived` fields."""
    named: dict[str, Tensor] = {}
    for part in _stored(value):
        held = getattr(value, part.name)
        named |= (
            as_named(f"{prefix}.{part.name}", held)
            if "of" in part.metadata
            else {f"{prefix}.{part.name}": held.contiguous()}
        )
    return named


def from_named(kind: type[Any], prefix: str, tensors: dict[str, Tensor]) -> Any:
    """Build the dataclass from the tensors of `as_named`."""
    return kind(
        *(
            from_named(part.metadata["of"], f"{prefix}.{part.name}", tensors)
            if "of" in part.metadata
            else tensors[f"{prefix}.{part.name}"]
            for part in _stored(kind)
        )
    )


def _stored(kind: Any) -> list[Field[Any]]:
    return [part for part in fields(kind) if "derived" not in part.metadata]
