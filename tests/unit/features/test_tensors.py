"""Safetensors files that are written through memory."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from dssm_core.features.tensors import create_tensors


def test_what_is_written_into_the_tensors_is_in_the_file(tmp_path: Path) -> None:
    shapes = {
        "small": (torch.int32, (3,)),
        "large": (torch.int64, (2, 2)),
        "no": (torch.int64, (0,)),
    }
    tensors = create_tensors(tmp_path / "x.safetensors", shapes)
    tensors["small"][1:] = torch.tensor([5, 6])
    tensors["large"][1, 0] = 2**40
    read = load_file(tmp_path / "x.safetensors")
    assert {name: (part.dtype, tuple(part.shape)) for name, part in read.items()} == shapes
    assert read["small"].tolist() == [0, 5, 6]
    assert read["large"].tolist() == [[0, 0], [2**40, 0]]


def test_a_full_disk_is_an_error_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(descriptor: int, first: int, size: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(OSError, match="No space left"):
        create_tensors(tmp_path / "x.safetensors", {"a": (torch.int64, (9,))})
