"""Checkpoints: tensors and plain values in one file."""

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
    """The state of the last save, on the CPU; None if there is no file. It is read without
    unpickling objects.
    """
    if not file.is_file():
        return None
    state: dict[str, Any] = torch.load(file, map_location="cpu", weights_only=True)
    return state
