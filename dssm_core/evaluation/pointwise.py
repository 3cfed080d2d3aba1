"""AUC, GAUC and log-loss of the towers on single test rows with either label."""

from __future__ import annotations

import numpy as np
import pandas as pd

from dssm_core import metrics
from dssm_core.aliases import Doubles
from dssm_core.evaluation.answers import ServedRun, chunks
from dssm_core.evaluation.queries import LabelledPairs
from dssm_core.runs.gate_report import Scores


def judge_pairs(opened: ServedRun, pairs: LabelledPairs) -> Scores | None:
    """Metrics of the similarity of user and item on the pairs; None without pairs.

    log_loss is of use only for towers that are trained to a probability (`loss.kind: bce`); it is
    None where training left no temperature.
    """
    if not len(pairs.labels):
        return None
    scores = _similarities(opened, pairs)
    trained = opened.run.manifest("train_towers")
    temperature = trained.info.get("temperature") if trained else None
    users = pd.factorize(pairs.queries.users)[0]
    log_loss = metrics.log_loss(scores / temperature, pairs.labels) if temperature else None
    return Scores(
        {
            "auc": metrics.auc(scores, pairs.labels),
            "gauc": metrics.gauc(scores, pairs.labels, users),
            "log_loss": log_loss,
            "rows": len(scores),
            "positives": int(pairs.labels.sum()),
        }
    )


def _similarities(opened: ServedRun, pairs: LabelledPairs) -> Doubles:
    """Similarity of user and item of each pair: [n]."""
    vectors = opened.encode(pairs.queries)
    scores = np.zeros(len(pairs.labels))
    for first, last in chunks(len(scores)):
        items = opened.items[pairs.items[first:last]]
        scores[first:last] = (vectors.part(first, last) * items).sum(1)
    return scores
