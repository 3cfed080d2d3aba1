"""The step `build_index`: the index that is served."""

from __future__ import annotations

import logging
import time
from dataclasses import asdict
from pathlib import Path

import numpy as np

from dssm_core import families
from dssm_core.aliases import JSON, Floats
from dssm_core.config import Config
from dssm_core.families import INDEXES
from dssm_core.retrieval.filter_trials import try_filters
from dssm_core.retrieval.indexes import measure
from dssm_core.retrieval.indexes.protocol import Index
from dssm_core.retrieval.item_index import build_item_index
from dssm_core.runs.layout import ITEM_EMBEDDINGS_FILE, USER_EMBEDDINGS_FILE
from dssm_core.runs.manifest import Outcome
from dssm_core.runs.run import Run

log = logging.getLogger(__name__)


def build_index(run: Run, work: Path) -> Outcome:
    """Step function. Build the configured index over the exported items and save it into `work`."""
    folder = run.step("export_embeddings")
    vectors: Floats = np.load(folder / ITEM_EMBEDDINGS_FILE)
    users: Floats = np.load(folder / USER_EMBEDDINGS_FILE, mmap_mode="r")
    return Outcome({"items": len(vectors)}, make_index(run.config, vectors, users, work))


def make_index(config: Config, vectors: Floats, users: Floats, work: Path) -> JSON:
    """Build the configured index over items [N, D] and save it into `work`.

    Returns what was built, and its recall@k and queries per second, measured with users [U + 1, D]
    against exact search, among all items and among a share of them (`filtered`).
    """
    kind = config.index.kind
    member: Index = families.build(INDEXES, config.index)
    queries = users[1:]  # row 0, the unknown user, is not a realistic query
    started = time.perf_counter()
    built = build_item_index(member, vectors, config.seed, queries)
    seconds = time.perf_counter() - started
    index = built.index
    chosen, trials = try_filters(built, queries, config.seed)
    chosen.save(work)
    sample = measure.sample(vectors, queries, measure.K, measure.QUERIES, config.seed)
    recall, rate = sample.measure(member, index)
    if recall < measure.ENOUGH:
        log.warning(
            "index %s returns only %.1f %% of the top %d items of exact search (measured on %d"
            " users): raise its settings, or set index.kind to auto or faiss_flat",
            kind,
            100 * recall,
            measure.K,
            len(sample.queries),
        )
    measured = {
        f"recall@{measure.K}": round(recall, 4),
        "queries_per_s": round(rate, 1),
        "queries": len(sample.queries),
    }
    return {
        "kind": kind,
        **member.describe(index),
        "build_seconds": round(seconds, 3),
        **measured,
        "filtered": [asdict(trial) for trial in trials],
    }
