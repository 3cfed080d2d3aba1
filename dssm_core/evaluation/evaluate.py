"""Offline evaluation: the served index, exact search and the baselines answer the queries of the
test set.

See queries.py for the queries, answers.py for the answerers, measure.py for the figures.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from dssm_core.aliases import Doubles
from dssm_core.evaluation import rolling
from dssm_core.evaluation.answers import Search, ServedRun, ask, list_search
from dssm_core.evaluation.fitting import (
    TimedBaseline,
    baseline_info,
    fit_baselines,
    recalls_of_one,
)
from dssm_core.evaluation.measure import Curve, Measured, mean, measure, measure_slice
from dssm_core.evaluation.pointwise import judge_pairs
from dssm_core.evaluation.queries import EvaluationData
from dssm_core.evaluation.rolled import report
from dssm_core.features.popularity import top
from dssm_core.runs.gate_report import Answers, GateMetrics, QueryCounts, Scores, SliceScores


@dataclass(frozen=True)
class Evaluated:
    """Metrics as the gate stores them, and recall by list length on `warm` (on `all` if there is no
    warm query), by answerer.

    recalls: the gate's recall of each query [Q] of its protocol and population, by answerer.
    """

    metrics: GateMetrics
    curves: dict[str, Curve]
    recalls: dict[str, Doubles]


def evaluate(opened: ServedRun, data: EvaluationData) -> Evaluated:
    """Measure a run's served index, exact search, baselines and ceiling on the same queries.

    Each answers all queries once; the slices are measured on its lists.
    """
    config = opened.run.config
    baselines = fit_baselines(config, data.train, data.cutoff_ms)
    warm: dict[str, Measured] = {}
    everyone: dict[str, Measured] = {}
    parts: dict[str, SliceScores] = {}
    for name, search in _searches(opened, data, baselines).items():
        lists = ask(search, data.all, max(config.evaluation.ks))
        warm[name] = measure(lists, data.warm, config)
        everyone[name] = measure(lists, data.all, config)
        if name == "served":
            parts = {part: measure_slice(lists, own, config) for part, own in data.parts.items()}
            if opened.served.finds_all:
                warm["exact"] = warm["served"]
                everyone["exact"] = everyone["served"]
    info = {name: baseline_info(fitted, data, config) for name, fitted in baselines.items()}
    answers = _by_answerer(warm)
    metrics = GateMetrics(
        served=answers.served,
        exact=answers.exact,
        baselines={
            name: Scores(scores.root | info[name]) for name, scores in answers.baselines.items()
        },
        ceiling=Scores({config.gate.metric: ceiling(data, config.gate.k)}),
        all=_by_answerer(everyone),
        parts=parts,
        queries=QueryCounts(warm=len(data.warm.codes), all=len(data.all.codes)),
    )
    pointwise = judge_pairs(opened, data.pairs)
    if pointwise is not None:
        metrics = metrics.model_copy(update={"pointwise": pointwise})
    if data.asked.sample is not None:
        metrics = metrics.model_copy(update={"sample": data.asked.sample})
    gate = config.gate
    asked = warm if gate.population == "warm" else everyone
    recalls = {name: measured.recalls for name, measured in asked.items()}
    if config.evaluation.rolling:
        rolled = rolling.roll(opened.run, data, opened.bundle)
        metrics = metrics.model_copy(update={"rolling": report(rolled, config)})
        if gate.protocol == "rolling":
            names = [name for name in rolled.positions if name in recalls]
            recalls = {name: rolled.recalls(name, gate.population, gate.k) for name in names}
    drawn = warm if len(data.warm.codes) else everyone
    curves = {name: measured.curve for name, measured in drawn.items()}
    return Evaluated(metrics, curves, recalls)


def ceiling(data: EvaluationData, k: int) -> float | None:
    """The highest recall@k on warm queries that one list for all users could reach.

    It lists the items of the training set that the test set clicks most.
    """
    return mean(recalls_of_one(top(len(data.test_counts), data.test_counts), data, k))


def _searches(
    opened: ServedRun, data: EvaluationData, baselines: Mapping[str, TimedBaseline]
) -> dict[str, Search]:
    """The served index, exact search unless the index is exact, and each baseline, by name."""
    vectors = opened.encode(data.all)
    searches = {"served": opened.search(opened.served, vectors)}
    if not opened.served.finds_all:
        searches["exact"] = opened.search(opened.exact, vectors)
    histories = data.all.histories
    return searches | {name: list_search(fitted, histories) for name, fitted in baselines.items()}


def _by_answerer(measured: Mapping[str, Measured]) -> Answers:
    scores = {name: Scores(of_one.scores) for name, of_one in measured.items()}
    served = scores.pop("served")
    exact = scores.pop("exact")
    return Answers(served=served, exact=exact, baselines=scores)
