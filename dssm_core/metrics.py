"""Ranking metrics over many users at once: hits in, one number a user out; and confidence intervals
of their mean.

hits [U, K] bool: is the item at that place of the user's list relevant. relevant [U]: how many
items are relevant, 1 or more.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dssm_core.aliases import Bools, Doubles, Ints

RESAMPLED_AT_ONCE = 4_000_000  # drawn indices held at a time, 32 MB


@dataclass(frozen=True)
class Relevant:
    """What each query should find.

    keys [P] int64, sorted: query * n_items + item row for each relevant pair whose item has a row.
    counts [Q] int64: relevant items a query, those without a row included (they can only be
    missed).
    """

    keys: Ints
    counts: Ints
    n_items: int

    @classmethod
    def of(cls, queries: Ints, rows: Ints, n_queries: int, n_items: int) -> Relevant:
        """From distinct pairs [P]: query 0..n_queries-1 and item row (-1: not in the catalogue,
        each one of its own).
        """
        counts = np.bincount(queries, minlength=n_queries).astype(np.int64)
        known = rows >= 0
        return cls(np.sort(queries[known] * n_items + rows[known]), counts, n_items)

    def hits(self, rows: Ints, first: int = 0) -> Bools:
        """Which of the retrieved rows [B, K] of queries first..first+B-1 are relevant; row -1 never
        is. [B, K]
        """
        if len(self.keys) == 0:
            return np.zeros(rows.shape, dtype=np.bool_)
        wanted = (first + np.arange(len(rows)))[:, None] * self.n_items + rows
        at = np.minimum(np.searchsorted(self.keys, wanted), len(self.keys) - 1)
        found: Bools = (self.keys[at] == wanted) & (rows >= 0)
        return found


def recall(hits: Bools, relevant: Ints, k: int) -> Doubles:
    """Share of a user's relevant items among the first k. [U]"""
    return np.asarray(hits[:, :k].sum(1) / relevant, dtype=np.float64)


def precision(hits: Bools, relevant: Ints, k: int) -> Doubles:
    """Share of the first k that is relevant. [U]"""
    return np.asarray(hits[:, :k].sum(1) / k, dtype=np.float64)


def hit_rate(hits: Bools, relevant: Ints, k: int) -> Doubles:
    """1 where any of the first k is relevant, else 0. [U]"""
    return np.asarray(hits[:, :k].any(1), dtype=np.float64)


def average_precision(hits: Bools, relevant: Ints, k: int) -> Doubles:
    """Mean of the precision at each hit, over min(relevant, k) hits that were possible. [U]"""
    top = hits[:, :k]
    precisions = np.cumsum(top, 1) / np.arange(1, top.shape[1] + 1)
    return np.asarray((precisions * top).sum(1) / np.minimum(relevant, k))


def ndcg(hits: Bools, relevant: Ints, k: int) -> Doubles:
    """Gain 1/log2(place + 1) a hit, over that of the best possible list. [U]"""
    discounts = 1 / np.log2(np.arange(2, k + 2))
    gains = hits[:, :k] @ discounts[: hits.shape[1]]
    return np.asarray(gains / np.cumsum(discounts)[np.minimum(relevant, k) - 1])


METRICS = {
    "recall": recall,
    "precision": precision,
    "map": average_precision,
    "ndcg": ndcg,
    "hit_rate": hit_rate,
}


def auc(scores: Doubles, labels: Ints) -> float:
    """Chance that a row of label 1 scores above one of label 0, ties half. Both [n]; both labels
    must occur.
    """
    from sklearn.metrics import roc_auc_score  # takes a second: only here

    return float(roc_auc_score(labels, scores))


def gauc(scores: Doubles, labels: Ints, users: Ints) -> float | None:
    """Mean of the AUC within each user, weighted by the user's rows (Zhu et al. 2017, "Optimized
    cost per click").

    All [n]. Users whose rows are all of one label say nothing of an order and are left out; None
    where all are.
    """
    user = np.unique(users, return_inverse=True)[1]
    _, tied, size = np.unique(
        np.stack([user, np.unique(scores, return_inverse=True)[1]]),
        axis=1,
        return_inverse=True,
        return_counts=True,
    )
    rows = np.bincount(user)
    rank = (np.cumsum(size) - (size - 1) / 2)[tied.ravel()] - (np.cumsum(rows) - rows)[
        user
    ]  # 1.. within the user, ties' mean
    positive = np.bincount(user, labels)
    pairs = positive * (rows - positive)
    told = pairs > 0
    if not told.any():
        return None
    above = np.bincount(user, rank * labels) - positive * (positive + 1) / 2
    return float(np.average(above[told] / pairs[told], weights=rows[told]))


def log_loss(logits: Doubles, labels: Ints) -> float:
    """Mean of -log of the probability, sigmoid(logit), that a row's own label has. Both [n]."""
    from scipy.special import expit
    from sklearn.metrics import log_loss as loss

    return float(loss(labels, expit(logits), labels=[0, 1]))


def coverage(seen: Bools) -> float:
    """Share of the catalogue that was shown to anyone: seen [N] bool."""
    return float(seen.mean()) if len(seen) else 0.0


def bootstrap(
    values: Doubles, resamples: int, rng: np.random.Generator, level: float = 0.95
) -> tuple[float, float]:
    """The percentile interval of the mean when users [U] are drawn anew; (NaN, NaN) without users."""
    if len(values) == 0:
        return float("nan"), float("nan")
    at_once = max(1, RESAMPLED_AT_ONCE // len(values))
    sizes = [min(at_once, resamples - done) for done in range(0, resamples, at_once)]
    means = [values[rng.integers(0, len(values), (size, len(values)))].mean(1) for size in sizes]
    low, high = np.quantile(np.concatenate(means), [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
