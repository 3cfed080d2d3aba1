"""What the FAISS indexes share: one thread to build, one file, one search."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import faiss as untyped
import numpy as np

from dssm_core.aliases import Bools, Floats, Ints
from dssm_core.errors import ArtifactError
from dssm_core.retrieval.indexes.protocol import check_k, mark_missing
from dssm_core.runs.files import write_atomically

faiss: Any = untyped  # its stubs lack half of its classes

FILE = "index.faiss"


@contextmanager
def one_thread() -> Iterator[None]:
    """Build on one thread: the order in which vectors enter a graph or a k-means decides the
    result.
    """
    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)
    try:
        yield
    finally:
        faiss.omp_set_num_threads(before)


def save(index: Any, folder: Path) -> None:
    """Write an index as `index.faiss`."""
    write_atomically(
        folder / FILE, faiss.serialize_index(index).tobytes()
    )  # FAISS's own writer is silent on a full disk


def load(folder: Path) -> Any:
    """Read `index.faiss`; ArtifactError where it is missing or damaged."""
    file = folder / FILE
    if not file.is_file():
        raise ArtifactError(f"{folder} has no {FILE}: run `dssm build_index` again")
    try:
        return faiss.read_index(str(file))
    except RuntimeError as error:
        raise ArtifactError(
            f"{file} is not a readable FAISS index: run `dssm build_index` again"
        ) from error


def search(
    index: Any, queries: Floats, k: int, parameters: Any, allowed: Bools | None
) -> tuple[Ints, Floats]:
    """Search with the index's own metric (inner product); short results are padded as the Protocol
    says.

    parameters: FAISS's search parameters of this kind of index.
    """
    queries = np.ascontiguousarray(queries, dtype=np.float32)
    if allowed is not None:
        # A variable: FAISS holds only a pointer, and the selector must live until the search ends.
        selector = faiss.IDSelectorBitmap(np.packbits(allowed, bitorder="little"))
        parameters.sel = selector
    scores, rows = index.search(queries, check_k(k), params=parameters)
    return mark_missing(rows, scores)
