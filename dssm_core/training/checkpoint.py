"""Tensors on disk: written whole or not at all, read without unpickling."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import torch

from dssm_core.runs.files import write_atomically


def save_checkpoint(file: Path, state: dict[str, Any]) -> None:
    """Write tensors and plain values, atomically."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    write_atomically(file, buffer.getvalue())


def load_checkpoint(file: Path) -> dict[str, Any] | None:
    """What the last save wrote, on the CPU; None where there is none."""
    if not file.is_file():
        return None
    state: dict[str, Any] = torch.load(file, map_location="cpu", weights_only=True)
    return state
