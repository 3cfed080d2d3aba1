"""Dataclasses of tensors as safetensors files: written atomically, read without unpickling."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any

from safetensors.torch import save
from torch import Tensor

from dssm_core.runs.files import write_atomically


def save_tensors(file: Path, tensors: dict[str, Tensor]) -> None:
    """Write tensors to a safetensors file, atomically. Raises ServiceError on a full disk; the
    library's own error is no OSError.
    """
    write_atomically(
        file, save({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()})
    )


def as_named(prefix: str, value: Any) -> dict[str, Tensor]:
    """The tensors of a dataclass by `prefix.field`, for safetensors."""
    named: dict[str, Tensor] = {}
    for part in fields(value):
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
            for part in fields(kind)
        )
    )
