"""Ranking metrics of one answerer on a slice: means over queries, intervals, curves."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from dssm_core import metrics
from dssm_core.aliases import JSON, Doubles, Ints
from dssm_core.config import Config
from dssm_core.evaluation.answers import chunks
from dssm_core.evaluation.queries import Slice
from dssm_core.runs.gate_report import Difference, SliceScores


class Curve(NamedTuple):
    """Recall of the first 1..K positions: the mean over queries [K], and its standard error [K]."""

    mean: Doubles
    error: Doubles


@dataclass(frozen=True)
class Measured:
    """Figures by name (`recall@20`, `recall@200_low` …), None without queries; and the curve.

    recalls [Q]: the gate's recall of each query.
    """

    scores: dict[str, float | None]
    curve: Curve
    recalls: Doubles


def measure(lists: Ints, queries: Slice, config: Config) -> Measured:
    """Compare lists with what the queries of a slice should find, and average over queries.

    lists: [n, K] of all queries, of which those of the slice are at `queries.position`.

    micro_recall: hits over all relevant items of all queries, so that a query counts by the number
    of its relevant items. coverage: share of the catalogue that was listed for anyone.
    """
    ks = config.evaluation.ks
    n = len(queries.codes)
    values = {f"{name}@{k}": np.zeros(n) for name in metrics.METRICS for k in ks}
    listed = {k: np.zeros(queries.relevant.n_items, dtype=np.bool_) for k in ks}
    curve = np.zeros(max(ks))
    squares = np.zeros(max(ks))
    hits_at = np.zeros(max(ks))
    for first, last in chunks(n):
        rows = lists[queries.position[first:last], : max(ks)]
        hits = queries.relevant.hits(rows, first)
        counts = queries.relevant.counts[first:last]
        for name, metric in metrics.METRICS.items():
            for k in ks:
                values[f"{name}@{k}"][first:last] = metric(hits, counts, k)
        for k, mask in listed.items():
            mask[rows[:, :k][rows[:, :k] >= 0]] = True
        recalls = np.cumsum(hits, 1) / counts[:, None]  # [B, K]
        curve += recalls.sum(0)
        squares += np.square(recalls).sum(0)
        hits_at += np.cumsum(hits.sum(0))
    total = queries.relevant.counts.sum()
    scores = {key: mean(value) for key, value in values.items()}
    scores |= {f"micro_recall@{k}": float(hits_at[k - 1] / total) if n else None for k in ks}
    scores |= {f"coverage@{k}": metrics.coverage(mask) for k, mask in listed.items()}
    scores |= _interval(values[config.gate.metric], config)
    return Measured(scores, mean_and_error(curve, squares, n), values[config.gate.metric])


def _interval(values: Doubles, config: Config) -> dict[str, float | None]:
    rng = np.random.default_rng(config.seed)
    bounds = metrics.bootstrap(values, config.evaluation.bootstrap, rng)
    return {
        f"{config.gate.metric}_{side}": None if math.isnan(bound) else bound
        for side, bound in zip(("low", "high"), bounds, strict=True)
    }


def mean_and_error(sums: Doubles, squares: Doubles, n: int) -> Curve:
    """Mean of n values and its standard error, from their sums and sums of squares, [K] each.

    Both are 0 for n = 0.
    """
    mean = sums / max(n, 1)
    variance = np.maximum(squares - n * mean**2, 0) / max(n - 1, 1)
    return Curve(mean, np.sqrt(variance / max(n, 1)))


def gate_recalls(lists: Ints, queries: Slice, k: int) -> Doubles:
    """Recall@k of each query [Q]. lists: as in `measure`."""
    values = np.zeros(len(queries.codes))
    for first, last in chunks(len(values)):
        hits = queries.relevant.hits(lists[queries.position[first:last], :k], first)
        values[first:last] = metrics.recall(hits, queries.relevant.counts[first:last], k)
    return values


def measure_slice(lists: Ints, queries: Slice, config: Config) -> SliceScores:
    """The gate's recall on a slice with its interval, and the number of queries."""
    values = gate_recalls(lists, queries, config.gate.k)
    scores: JSON = {config.gate.metric: mean(values)}
    return SliceScores(scores | _interval(values, config) | {"queries": len(values)})


def mean(values: Doubles) -> float | None:
    """The mean over queries [Q]; None without queries."""
    return float(values.mean()) if len(values) else None


def difference(rival: str, served: Doubles, other: Doubles, config: Config) -> Difference | None:
    """served - other, the recalls [Q] of two answerers on the same queries: the mean and its
    interval; None without queries.

    A paired bootstrap: queries are resampled, each with both of its values. The resamples depend on
    config.seed and Q only, so every rival is compared on the same ones.
    """
    if not len(served):
        return None
    gains = served - other
    rng = np.random.default_rng(config.seed)
    level = config.gate.level
    low, high = metrics.bootstrap(gains, config.evaluation.bootstrap, rng, level)
    mean = float(gains.mean())
    return Difference(rival=rival, mean=mean, low=low, high=high, confidence=level)
