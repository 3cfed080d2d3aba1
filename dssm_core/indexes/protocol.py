"""What every index does: inner products of unit vectors, the largest first."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from dssm_core.errors import DataError

Rows = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]


class Index(Protocol):
    """A family member: its fields are its settings, the built index is an object of its library."""

    def build(self, vectors: Floats, seed: int) -> Any:
        """Index unit vectors [N, D]; the same vectors and seed give the same index (one thread)."""

    def save(self, index: Any, folder: Path) -> None:
        """Write the index into an existing folder."""

    def load(self, folder: Path) -> Any:
        """Read what `save` wrote; ArtifactError where it is missing or damaged."""

    def search(self, index: Any, queries: Floats, k: int) -> tuple[Rows, Floats]:
        """The k rows of largest inner product for each query [B, D]: rows [B, k] and scores [B, k], best first.

        Where fewer than k are found (k over N, or an approximate index that gave up) the rest is row -1, score -inf.
        """


def check_vectors(vectors: Floats) -> Floats:
    """Contiguous float32 [N, D]; DataError on another shape, an empty catalogue, or a value that is not finite."""
    if vectors.ndim != 2 or 0 in vectors.shape:
        raise DataError(f"vectors have shape {vectors.shape}: an index needs [N, D] with N and D of 1 or more")
    if not np.isfinite(vectors).all():
        raise DataError("vectors hold NaN or infinity: the towers diverged; lower train.learning_rate")
    return np.ascontiguousarray(vectors, dtype=np.float32)


def check_k(k: int) -> int:
    """k itself; ValueError where it is below 1."""
    if k < 1:
        raise ValueError(f"k is {k}: ask for 1 or more items")
    return k


def mark_missing(rows: Rows, scores: Floats) -> tuple[Rows, Floats]:
    """Rows and scores with -inf wherever the row is -1 (libraries put a huge finite number there)."""
    return rows.astype(np.int64), np.where(rows < 0, -np.inf, scores).astype(np.float32)
