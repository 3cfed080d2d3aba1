"""Ranking metrics of many users at once, and confidence intervals of their mean.

hits [U, K] bool: whether the item at each position of the user's list is relevant. relevant [U]:
number of relevant items of each user, 1 or more. A metric returns one value for each user.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dssm_core.aliases import Bools, Doubles, Ints

RESAMPLED_AT_ONCE = 4_000_000  # drawn indices held at once, 32 MB


@dataclass(frozen=True)
class Relevant:
    """The items that each query should find.

    keys [P] int64, sorted: query * n_items + item row of each relevant pair whose item has a row.
    counts [Q] int64: number of relevant items of each query; an item without a row counts, and can
    only be missed.
    """

    keys: Ints
    counts: Ints
    n_items: int

    @classmethod
    def of(cls, queries: Ints, rows: Ints, n_queries: int, n_items: int) -> Relevant:
        """Build from distinct pairs [P]: query 0..n_queries-1 and item row.

        Row -1 is an item outside the catalogue, another one each time.
        """
        counts = np.bincount(queries, minlength=n_queries).astype(np.int64)
        known = rows >= 0
        return cls(np.sort(queries[known] * n_items + rows[known]), counts, n_items)

    def hits(self, rows: Ints, first: int = 0) -> Bools:
        """Which of the retrieved rows [B, K] of queries first..first+B-1 are relevant: [B, K].

        Row -1 is never relevant.
        """
        if len(self.keys) == 0:
            return np.zeros(rows.shape, dtype=np.bool_)
        keys = (first + np.arange(len(rows)))[:, None] * self.n_items + rows
        nearest = np.minimum(np.searchsorted(self.keys, keys), len(self.keys) - 1)
        hits: Bools = (self.keys[nearest] == keys) & (rows >= 0)
        return hits


def recall(hits: Bools, relevant: Ints, k: int) -> Doubles:
    """Share of the relevant items that are among the first k. [U]"""
    return np.asarray(hits[:, :k].sum(1) / relevant, dtype=np.float64)


def precision(hits: Bools, relevant: Ints, k: int) -> Doubles:
    """Share of the first k that are relevant. [U]"""
    return np.asarray(hits[:, :k].sum(1) / k, dtype=np.float64)


def hit_rate(hits: Bools, relevant: Ints, k: int) -> Doubles:
    """1 where any of the first k is relevant, else 0. [U]"""
    return np.asarray(hits[:, :k].any(1), dtype=np.float64)


def average_precision(hits: Bools, relevant: Ints, k: int) -> Doubles:
    """Sum of the precision at each hit, divided by the possible hits, min(relevant, k). [U]"""
    top = hits[:, :k]
    precisions = np.cumsum(top, 1) / np.arange(1, top.shape[1] + 1)
    return np.asarray((precisions * top).sum(1) / np.minimum(relevant, k))


def ndcg(hits: Bools, relevant: Ints, k: int) -> Doubles:
    """Gain 1 / log2(position + 1) of each hit, divided by that of the best possible list. [U]"""
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
    """Probability that a row of label 1 scores above one of label 0; ties count half.

    Both [n]; both labels must occur.
    """
    from sklearn.metrics import roc_auc_score  # the import takes a second

    return float(roc_auc_score(labels, scores))


def gauc(scores: Doubles, labels: Ints, users: Ints) -> float | None:
    """Mean of the AUC of each user, weighted by the number of rows (Zhu et al. 2017,
    "Optimized cost per click").

    All [n]. Users with rows of one label only have no AUC and are left out; None without others.
    """
    user = np.unique(users, return_inverse=True)[1]
    _, tied, size = np.unique(
        np.stack([user, np.unique(scores, return_inverse=True)[1]]),
        axis=1,
        return_inverse=True,
        return_counts=True,
    )
    rows = np.bincount(user)
    before = (np.cumsum(rows) - rows)[user]
    rank = (np.cumsum(size) - (size - 1) / 2)[tied.ravel()] - before  # from 1; the mean of ties
    positive = np.bincount(user, labels)
    pairs = positive * (rows - positive)
    ordered = pairs > 0
    if not ordered.any():
        return None
    above = np.bincount(user, rank * labels) - positive * (positive + 1) / 2
    return float(np.average(above[ordered] / pairs[ordered], weights=rows[ordered]))


def log_loss(logits: Doubles, labels: Ints) -> float:
    """Mean of -log p, where p is what sigmoid(logit) gives to the label. Both [n]."""
    from scipy.special import expit
    from sklearn.metrics import log_loss as loss

    return float(loss(labels, expit(logits), labels=[0, 1]))


def coverage(seen: Bools) -> float:
    """Share of the catalogue that was listed for anyone. seen: [N]"""
    return float(seen.mean()) if len(seen) else 0.0


def bootstrap(
    values: Doubles, resamples: int, rng: np.random.Generator, level: float = 0.95
) -> tuple[float, float]:
    """The percentile bootstrap interval of the mean over users [U]; (NaN, NaN) without users."""
    if len(values) == 0:
        return float("nan"), float("nan")
    at_once = max(1, RESAMPLED_AT_ONCE // len(values))
    sizes = [min(at_once, resamples - done) for done in range(0, resamples, at_once)]
    means = [values[rng.integers(0, len(values), (size, len(values)))].mean(1) for size in sizes]
    low, high = np.quantile(np.concatenate(means), [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
