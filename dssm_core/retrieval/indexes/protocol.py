"""What an index is: search for the largest inner products."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar, Protocol

import numpy as np

from dssm_core.aliases import Bools, Floats, Ints
from dssm_core.config import Member
from dssm_core.errors import DataError

log = logging.getLogger(__name__)

SLOW = 100_000  # builds of this many vectors log their progress
PART = 50_000  # vectors added at a time


class Index(Protocol):
    """A family member: its fields are its settings, the built index is an object of its library."""

    effort: ClassVar[str | None]
    """The setting that trades speed of a search for recall, an int; None if there is none."""
    exact: ClassVar[bool]
    """Whether it always finds what exact search finds."""
    ignores: ClassVar[tuple[str, ...]]
    """Settings of the config that have no effect under this index, by dotted path."""

    @property
    def requirements(self) -> tuple[str, ...]:
        """Packages beside faiss that a server of this index needs."""

    def least_effort(self, k: int) -> int:
        """The smallest useful value of `effort` for searches of k items."""

    @classmethod
    def sizes(cls, items: int) -> tuple[dict[str, Any], ...]:
        """Settings that `auto` builds with for `items` items; empty if it cannot be tried."""

    def inner(self, index: Any) -> tuple[Member, Any] | None:
        """The member and the index that search, if this one only chooses them."""

    def build(self, vectors: Floats, seed: int, queries: Floats | None = None) -> Any:
        """Index unit vectors [N, D]; the same vectors and seed give the same index (one thread).

        queries [Q, D]: typical query vectors, for a member that tunes itself by them; other members
        ignore them.
        """

    def describe(self, index: Any) -> dict[str, Any]:
        """What people should know of a built index beyond the settings, plain JSON for the step's
        manifest.
        """

    def save(self, index: Any, folder: Path) -> None:
        """Write the index into an existing folder."""

    def load(self, folder: Path) -> Any:
        """Read what `save` wrote; ArtifactError where it is missing or damaged."""

    def search(
        self, index: Any, queries: Floats, k: int, allowed: Bools | None = None
    ) -> tuple[Ints, Floats]:
        """The k rows of largest inner product for each query [B, D]: rows [B, k] and scores [B, k],
        best first. allowed: [N], the rows that may be returned; None: all.

        Where fewer than k are found (k over N, or an approximate index that gave up) the rest is
        row -1, score -inf.
        """


def check_vectors(vectors: Floats) -> Floats:
    """Contiguous float32 [N, D]; DataError on another shape, an empty catalogue, or a value that is
    not finite.
    """
    if vectors.ndim != 2 or 0 in vectors.shape:
        raise DataError(
            f"vectors have shape {vectors.shape}: an index needs [N, D] with N and D of 1 or more"
        )
    if not np.isfinite(vectors).all():
        raise DataError(
            "vectors hold NaN or infinity: the towers diverged; lower train.learning_rate"
        )
    return np.ascontiguousarray(vectors, dtype=np.float32)


def check_k(k: int) -> int:
    """k itself; ValueError where it is below 1."""
    if k < 1:
        raise ValueError(f"k is {k}: ask for 1 or more items")
    return k


def mark_missing(rows: Ints, scores: Floats) -> tuple[Ints, Floats]:
    """Rows and scores, with score -inf where the row is -1: libraries return a finite number."""
    return rows.astype(np.int64), np.where(rows < 0, -np.inf, scores).astype(np.float32)


def tell(vectors: Floats, doing: str) -> None:
    """Log what a build is doing, if it will take more than a few seconds."""
    if len(vectors) >= SLOW:
        log.info("%s: %s vectors", doing, f"{len(vectors):,}")


def in_parts(vectors: Floats, doing: str) -> Iterator[tuple[int, Floats]]:
    """Slices [<= PART, D] in order, with their first row. Logs each tenth of a slow build."""
    tenth = 0
    for first in range(0, len(vectors), PART):
        yield first, vectors[first : first + PART]
        done = min(first + PART, len(vectors))
        if len(vectors) >= SLOW and 10 * done // len(vectors) > tenth:
            tenth = 10 * done // len(vectors)
            log.info("%s: %s of %s vectors", doing, f"{done:,}", f"{len(vectors):,}")
