"""The figures of the rolling protocol: how often the item of a row was listed, by slice and by
refresh.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from dssm_core import metrics
from dssm_core.aliases import JSON, Bools, Doubles, Ints
from dssm_core.config import Config
from dssm_core.runs.gate_report import RefreshedAnswers, RollingReport, Scores

SLICES = ("warm", "all", "new_items")


@dataclass(frozen=True)
class RollingRows:
    """The test rows by time, all [P].

    users, items: external ids; part: number of the refresh before the row; warm: user and item are
    in the training set; new_items: the item is not.
    """

    users: pd.Series[Any]
    items: pd.Series[Any]
    part: Ints
    warm: Bools
    new_items: Bools

    def select(self, name: str) -> Bools:
        """The rows of a slice: `warm`, `all` or `new_items`. [P]"""
        masks = {
            "warm": self.warm,
            "all": np.ones_like(self.warm),
            "new_items": self.new_items,
        }
        return masks[name]


@dataclass(frozen=True)
class Rolled:
    """The position of each row's item in the list of each answerer.

    positions: by answerer [P], 0 is the first; the list's length where the item is not listed.
    variants: position of the rows by baseline and variant.
    """

    rows: RollingRows
    positions: dict[str, Ints]

    def scores(self, name: str, slice_name: str, config: Config) -> dict[str, float | None]:
        """Recall and micro recall of an answerer on a slice, for each k.

        recall@k: share of a user's rows that was found, mean over users, with its interval;
        micro_recall@k: share of all rows.
        """
        ks = config.evaluation.ks
        position = self.positions[name][self.rows.select(slice_name)]
        if not len(position):
            return {f"{kind}@{k}": None for kind in ("recall", "micro_recall") for k in ks}
        shares = {k: self.recalls(name, slice_name, k) for k in ks}
        scores: dict[str, float | None] = {f"recall@{k}": float(shares[k].mean()) for k in ks}
        scores |= {f"micro_recall@{k}": float((position < k).mean()) for k in ks}
        rng = np.random.default_rng(config.seed)
        low, high = metrics.bootstrap(shares[config.gate.k], config.evaluation.bootstrap, rng)
        return scores | {f"{config.gate.metric}_low": low, f"{config.gate.metric}_high": high}

    def recalls(self, name: str, slice_name: str, k: int) -> Doubles:
        """Share of each user's rows in a slice that was found in the first k positions. [Q]"""
        mask = self.rows.select(slice_name)
        user = pd.factorize(self.rows.users[mask])[0]
        shares: Doubles = np.bincount(user, self.positions[name][mask] < k) / np.bincount(user)
        return shares

    def by_part(self, name: str, k: int) -> list[float | None]:
        """Share of the rows found in the first k positions, by refresh; None without rows."""
        rows = np.bincount(self.rows.part)
        hits = np.bincount(self.rows.part, self.positions[name] < k)
        return [float(hit / n) if n else None for hit, n in zip(hits, rows, strict=True)]


def report(rolled: Rolled, config: Config) -> RollingReport:
    """The figures of a bundle, refreshed through the test days, beside the same bundle without
    refreshes (`daily`) and baselines that are fitted as often.
    """
    names = [chosen.name for chosen in config.evaluation.baselines]
    slices = {name: _by_answerer(rolled, name, names, config) for name in SLICES}
    return RollingReport(
        refresh_h=refresh_h(config),
        rows={name: int(rolled.rows.select(name).sum()) for name in SLICES},
        warm=slices["warm"],
        all=slices["all"],
        new_items=slices["new_items"],
        by_part={name: rolled.by_part(name, config.gate.k) for name in ("served", "daily", *names)},
    )


def _by_answerer(
    rolled: Rolled, slice_name: str, baselines: list[str], config: Config
) -> RefreshedAnswers:
    scores = {name: rolled.scores(name, slice_name, config) for name in rolled.positions}
    fitted: dict[str, JSON] = {name: dict(scores[name]) for name in baselines}
    for name in rolled.positions:
        baseline, _, variant = name.partition("/")
        if variant:  # for the report: the test rows choose no variant
            by_window = fitted[baseline].setdefault("by_window", {})
            by_window[variant] = scores[name][config.gate.metric]
    return RefreshedAnswers(
        served=Scores(scores["served"]),
        exact=Scores(scores["exact"]),
        daily=Scores(scores["daily"]),
        ceiling=Scores(scores["ceiling"]),
        baselines={name: Scores(each) for name, each in fitted.items()},
    )


def refresh_h(config: Config) -> int:
    """Hours between two refreshes."""
    assert config.evaluation.rolling is not None
    return config.evaluation.rolling.refresh_h
