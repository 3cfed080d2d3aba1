"""Exact search over all vectors: right up to about a million items."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict

from dssm_core.aliases import Bools, Floats, Ints
from dssm_core.config import Member
from dssm_core.retrieval.eligible import pad_lists
from dssm_core.retrieval.exact_search import exact_search
from dssm_core.retrieval.indexes import faiss_file
from dssm_core.retrieval.indexes.faiss_file import faiss
from dssm_core.retrieval.indexes.protocol import check_k, check_vectors


class FaissFlat(BaseModel):
    """No settings: every vector is compared."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    effort: ClassVar[str | None] = None
    exact: ClassVar[bool] = True
    ignores: ClassVar[tuple[str, ...]] = ()
    requirements: ClassVar[tuple[str, ...]] = ()

    def least_effort(self, k: int) -> int:
        """There is no effort to choose."""
        return 1

    @classmethod
    def sizes(cls, items: int) -> tuple[dict[str, Any], ...]:
        """None: `auto` always measures exact search."""
        return ()

    def inner(self, index: Any) -> tuple[Member, Any] | None:
        """None: it searches by itself."""
        return None

    def build(self, vectors: Floats, seed: int, queries: Floats | None = None) -> Any:
        """Index vectors [N, D]; nothing is random."""
        vectors = check_vectors(vectors)
        index = faiss.IndexFlatIP(vectors.shape[1])
        index.add(vectors)
        return index

    def describe(self, index: Any) -> dict[str, Any]:
        """Nothing: there is nothing to choose."""
        return {}

    def save(self, index: Any, folder: Path) -> None:
        """Write `index.faiss`."""
        faiss_file.save(index, folder)

    def load(self, folder: Path) -> Any:
        """Read `index.faiss`."""
        return faiss_file.load(folder)

    def search(
        self, index: Any, queries: Floats, k: int, allowed: Bools | None = None
    ) -> tuple[Ints, Floats]:
        """Rows and scores [B, k], best first.

        FAISS's own search takes three times as long for many queries.
        """
        shape = index.ntotal, index.d
        vectors = faiss.rev_swig_ptr(index.get_xb(), math.prod(shape)).reshape(shape)
        return pad_lists(*exact_search(vectors, queries, check_k(k), allowed), k)
