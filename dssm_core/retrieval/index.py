"""The step `build_index`: the index that is served."""

from __future__ import annotations

import logging
import time
from pathlib import Path

import numpy as np

from dssm_core import families
from dssm_core.aliases import JSON, Floats
from dssm_core.config import Config
from dssm_core.families import INDEXES
from dssm_core.retrieval.indexes import measure
from dssm_core.runs.layout import ITEM_EMBEDDINGS_FILE, USER_EMBEDDINGS_FILE
from dssm_core.runs.manifest import Outcome
from dssm_core.runs.run import Run

log = logging.getLogger(__name__)

TOO_FEW = "index %s finds %.1f %% of exact search's %d items (%d users asked): raise its settings, or set index.kind to auto or faiss_flat"


def build_index(run: Run, work: Path) -> Outcome:
    """Step function. Builds and saves the configured index over the exported items; info: see
    make_index.
    """
    folder = run.step("export_embeddings")
    vectors: Floats = np.load(folder / ITEM_EMBEDDINGS_FILE)
    users: Floats = np.load(folder / USER_EMBEDDINGS_FILE, mmap_mode="r")
    return Outcome({"items": len(vectors)}, make_index(run.config, vectors, users, work))


def make_index(config: Config, vectors: Floats, users: Floats, work: Path) -> JSON:
    """Build the configured index over items [N, D] and save it into `work`.

    Returns what was built, and its recall@k and speed, measured on users [U + 1, D] against exact
    search.
    """
    kind, member = config.index.kind, families.build(INDEXES, config.index)
    started = time.perf_counter()
    index = member.build(vectors, config.seed, users[1:])  # the unknown user asks like nobody
    built = time.perf_counter() - started
    member.save(index, work)
    asked = measure.sample(vectors, users[1:], measure.K, measure.QUERIES, config.seed)
    recall, rate = asked.measure(member, index)
    if recall < measure.ENOUGH:
        log.warning(TOO_FEW, kind, 100 * recall, measure.K, len(asked.queries))
    measured = {
        f"recall@{measure.K}": round(recall, 4),
        "queries_per_s": round(rate, 1),
        "queries": len(asked.queries),
    }
    return {"kind": kind, **member.describe(index), "build_seconds": round(built, 3), **measured}
