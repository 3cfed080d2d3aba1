"""A forest of random projection trees, one memory-mapped file. Needs the extra `annoy`, which
compiles.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, ClassVar

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from dssm_core.aliases import Bools, Floats, Ints
from dssm_core.config import Config, Member
from dssm_core.errors import ArtifactError, ConfigError
from dssm_core.retrieval.eligible import Eligible, pad_lists
from dssm_core.retrieval.indexes.protocol import check_k, check_vectors, in_parts, tell

FILE = "index.annoy"
OVERFETCH = 20
SPARE = 1.5  # of the rows that are expected to be needed
SHAPE = "index.json"  # the file itself does not know its dimension


class Annoy(BaseModel):
    """A forest of random projection trees."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)
    effort: ClassVar[str | None] = "search_k"
    exact: ClassVar[bool] = False
    ignores: ClassVar[tuple[str, ...]] = ()
    requirements: ClassVar[tuple[str, ...]] = ("annoy",)
    trees: Annotated[int, Field(ge=1)] = 100
    """Number of trees. More trees: better recall, larger index."""
    search_k: Annotated[int, Field(ge=1)] = 50_000
    """Number of nodes that a query visits. More nodes: better recall, slower search."""

    def problems(self, config: Config) -> Iterator[str]:
        """A ranking by dot products, which it does not have."""
        if config.model.similarity == "dot":
            yield (
                "index 'annoy' ranks by cosine, not by model.similarity 'dot':"
                " take a faiss index, or cosine"
            )

    def least_effort(self, k: int) -> int:
        """A search that finds `k` items looks at no fewer nodes."""
        return k

    @classmethod
    def sizes(cls, items: int) -> tuple[dict[str, Any], ...]:
        """A forest of 50 trees."""
        return ({"trees": 50},)

    def inner(self, index: Any) -> tuple[Member, Any] | None:
        """None: it searches by itself."""
        return None

    def build(self, vectors: Floats, seed: int, queries: Floats | None = None) -> Any:
        """Grow the forest over unit vectors [N, D]; `seed` draws the projections."""
        vectors = check_vectors(vectors)
        index = _annoy()(vectors.shape[1], "angular")
        index.set_seed(seed % 2**31)
        for first, part in in_parts(vectors, "reading in"):
            for row, vector in enumerate(part, first):  # Annoy takes one vector a call
                index.add_item(row, vector)
        tell(vectors, f"growing {self.trees} trees")
        index.build(self.trees, n_jobs=1)
        return index

    def describe(self, index: Any) -> dict[str, Any]:
        """The trees that were grown."""
        return {"trees": index.get_n_trees()}

    def save(self, index: Any, folder: Path) -> None:
        """Write `index.annoy`, and its dimension beside it."""
        index.save(str(folder / FILE))
        (folder / SHAPE).write_text(json.dumps({"dim": index.f}))

    def load(self, folder: Path) -> Any:
        """Map the file into memory; ArtifactError where it is missing or damaged."""
        try:
            index = _annoy()(json.loads((folder / SHAPE).read_bytes())["dim"], "angular")
            index.load(str(folder / FILE))
        except (OSError, ValueError, KeyError) as error:
            raise ArtifactError(
                f"{folder} has no readable {FILE} and {SHAPE}: run `dssm build_index` again"
            ) from error
        return index

    def search(
        self, index: Any, queries: Floats, k: int, allowed: Bools | None = None
    ) -> tuple[Ints, Floats]:
        """Rows and scores [B, k], best first; Annoy's angular distance d of unit vectors is turned
        back by 1 - d^2/2.

        Annoy cannot leave rows out: it is asked for so many more that k of them are likely to be
        allowed, and at most for OVERFETCH times as many.
        """
        fetched = check_k(k)
        if allowed is not None:
            share = max(float(allowed.mean()), 1 / OVERFETCH)
            fetched = min(math.ceil(SPARE * k / share), len(allowed))
        rows = np.full((len(queries), fetched), -1, dtype=np.int64)
        scores = np.full((len(queries), fetched), -np.inf, dtype=np.float32)
        for i, query in enumerate(queries):  # Annoy takes one query a call
            found, distances = index.get_nns_by_vector(
                query, fetched, max(self.search_k, fetched), include_distances=True
            )
            rows[i, : len(found)] = found
            scores[i, : len(found)] = 1 - np.square(distances) / 2
        kept = Eligible(index.get_n_items(), allowed).keep(rows, scores)
        return pad_lists(*kept, k)


def _annoy() -> Any:
    try:
        from annoy import AnnoyIndex
    except ImportError as error:
        raise ConfigError(
            "index.kind 'annoy' needs the extra: pip install 'dssm[annoy]', or choose faiss_flat"
        ) from error
    return AnnoyIndex
