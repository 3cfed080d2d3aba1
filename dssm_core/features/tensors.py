"""Dataclasses of tensors on disk, as safetensors: written whole or not at all, read without
unpickling.
"""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any

from safetensors.torch import save
from torch import Tensor

from dssm_core.runs.files import write_atomically


def save_tensors(file: Path, tensors: dict[str, Tensor]) -> None:
    """Write tensors as safetensors, atomically; ServiceError on a full disk (the library's own
    error is no OSError).
    """
    write_atomically(
        file, save({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()})
    )


def as_named(prefix: str, value: Any) -> dict[str, Tensor]:
    """A dataclass of tensors as `prefix.field` → tensor, ready for safetensors."""
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
    """What `as_named` took apart."""
    return kind(
        *(
            from_named(part.metadata["of"], f"{prefix}.{part.name}", tensors)
            if "of" in part.metadata
            else tensors[f"{prefix}.{part.name}"]
            for part in fields(kind)
        )
    )
