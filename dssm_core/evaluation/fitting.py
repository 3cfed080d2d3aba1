"""The configured baselines, fitted on the training set, and the time that each takes."""

from __future__ import annotations

import time
from dataclasses import dataclass

from dssm_core import families
from dssm_core.aliases import JSON, Doubles, Ints
from dssm_core.config import Config
from dssm_core.evaluation.answers import ask, one_list
from dssm_core.evaluation.baselines.protocol import Fitted
from dssm_core.evaluation.measure import gate_recalls, mean
from dssm_core.evaluation.queries import EvaluationData
from dssm_core.families import BASELINES
from dssm_core.features.histories import Histories
from dssm_core.features.popularity import Clicks

DEFAULT_SEED: int = Config.model_fields["seed"].default


@dataclass
class TimedBaseline:
    """A fitted baseline, and the lists from which it chose one, by name.

    seconds: what fitting it and its lists took so far.
    """

    fitted: Fitted
    variants: dict[str, Ints]
    seconds: float

    def lists(self, histories: Histories, k: int) -> Ints:
        """See Ranker."""
        started = time.perf_counter()
        rows = self.fitted.lists(histories, k)
        self.seconds += time.perf_counter() - started
        return rows


def fit_baselines(config: Config, clicks: Clicks, as_of_ms: int) -> dict[str, TimedBaseline]:
    """Fit each baseline of the config on the clicks before `as_of_ms`; by name.

    A baseline that draws follows `seed` of the config, unless its own settings have a seed. It gets
    the distance from the default: 0 at the default seed.
    """
    seed = (config.seed - DEFAULT_SEED) % 2**32
    baselines = {}
    for chosen in config.evaluation.baselines:
        member = families.build(BASELINES, chosen)
        started = time.perf_counter()
        fitted = member.fit(clicks, as_of_ms, seed)
        seconds = time.perf_counter() - started
        variants = member.variants(clicks, as_of_ms)
        baselines[chosen.name] = TimedBaseline(fitted, variants, seconds)
    return baselines


def baseline_info(baseline: TimedBaseline, data: EvaluationData, config: Config) -> JSON:
    """What a baseline reports beside its scores: its own info, and its cost in seconds.

    by_window: test recall of each variant, where there are some. It is for people: no choice can
    be made by it.
    """
    info: JSON = dict(baseline.fitted.info)
    if baseline.variants:
        info["by_window"] = {
            name: mean(recalls_of_one(rows, data, config.gate.k))
            for name, rows in baseline.variants.items()
        }
    return info | {"seconds": round(baseline.seconds, 3)}


def recalls_of_one(rows: Ints, data: EvaluationData, k: int) -> Doubles:
    """Recall@k of each warm query [Q], if all queries get the same list [n]."""
    return gate_recalls(ask(one_list(rows), data.all, k), data.warm, k)
