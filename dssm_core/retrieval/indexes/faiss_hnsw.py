"""HNSW: greedy search in a graph of near neighbours (Malkov & Yashunin 2016)."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field

from dssm_core.aliases import Bools, Floats, Ints
from dssm_core.config import Member
from dssm_core.retrieval.indexes import faiss_file
from dssm_core.retrieval.indexes.faiss_file import faiss
from dssm_core.retrieval.indexes.protocol import check_vectors, in_parts


class FaissHnsw(BaseModel):
    """A graph of near neighbours."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)
    effort: ClassVar[str | None] = "ef_search"
    exact: ClassVar[bool] = False
    ignores: ClassVar[tuple[str, ...]] = ()
    requirements: ClassVar[tuple[str, ...]] = ()
    m: Annotated[int, Field(ge=2)] = 32
    """Number of links of a vector."""
    ef_construction: Annotated[int, Field(ge=1)] = 200
    """Number of candidates that are kept while building."""
    ef_search: Annotated[int, Field(ge=1)] = 400
    """Number of candidates that are kept while searching; at least k."""

    def least_effort(self, k: int) -> int:
        """A walk keeps no fewer candidates than it returns."""
        return k

    @classmethod
    def sizes(cls, items: int) -> tuple[dict[str, Any], ...]:
        """A graph of 16 links a vector."""
        return ({"m": 16, "ef_construction": 100},)

    def inner(self, index: Any) -> tuple[Member, Any] | None:
        """None: it searches by itself."""
        return None

    def build(self, vectors: Floats, seed: int, queries: Floats | None = None) -> Any:
        """Link vectors [N, D] one after the other; `seed` draws their levels."""
        vectors = check_vectors(vectors)
        with faiss_file.one_thread():
            index = faiss.IndexHNSWFlat(vectors.shape[1], self.m, faiss.METRIC_INNER_PRODUCT)
            index.hnsw.rng = faiss.RandomGenerator(seed % 2**31)
            index.hnsw.efConstruction = self.ef_construction
            for _, part in in_parts(vectors, "linking the graph"):
                index.add(part)
        return index

    def describe(self, index: Any) -> dict[str, Any]:
        """Nothing: it is built as set."""
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
        """Rows and scores [B, k], best first; the walk keeps max(ef_search, k) candidates."""
        parameters = faiss.SearchParametersHNSW(efSearch=max(self.ef_search, k))
        return faiss_file.search(index, queries, k, parameters, allowed)
