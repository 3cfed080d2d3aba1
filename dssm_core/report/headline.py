"""The numbers of a run: the few that people compare first, and all of them."""

from __future__ import annotations

from typing import Any

from dssm_core.config import Gate
from dssm_core.gate.rules import judged
from dssm_core.report.text import NOT_COMPARABLE, gain, markdown_table, share
from dssm_core.runs.gate_report import GateMetrics, GateReport, Scores
from dssm_core.runs.pipeline import finished
from dssm_core.runs.run import Run
from dssm_core.tracking.runs import flatten

PREFIX = "headline."  # MLflow sorts and groups metrics by it
NOTHING = Scores({})
PAIRED = "paired interval"  # of a difference on the same queries


def headline(run: Run, report: GateReport) -> dict[str, Any]:
    """At most eighteen numbers that say whether a run is better than another: what is served, its
    rivals and the differences to them on the same queries, all traffic, latency and seconds.

    The keys are those of MLflow metrics, see `metric_name`. A number that was not measured is None.
    """
    gate = run.config.gate
    metrics = report.metrics
    name = gate.metric
    answers, _ = judged(metrics, gate)
    best = answers.best_baseline(name)
    champion = metrics.champion.of(gate.protocol, gate.population) if metrics.champion else NOTHING
    everyone = metrics.answers(gate.protocol, "all")
    numbers = {
        name: answers.served.value(name),
        f"{name}_low": answers.served.value(f"{name}_low"),
        f"{name}_high": answers.served.value(f"{name}_high"),
        f"{name}_all_traffic": everyone.served.value(name) if everyone else None,
        f"{name}_best_baseline": answers.baselines[best].value(name) if best else None,
        f"{name}_champion": champion.value(name),
        f"{name}_exact_search": answers.exact.value(name),
        f"ndcg@{gate.k}": answers.served.value(f"ndcg@{gate.k}"),
        f"coverage@{gate.k}": answers.served.value(f"coverage@{gate.k}"),
        **_differences("best_baseline", metrics.against_baseline),
        **_differences("champion", metrics.against_champion),
        **_cost(run),
    }
    return {f"{PREFIX}{key}": value for key, value in numbers.items()}


def rivals_table(metrics: GateMetrics, gate: Gate) -> str:
    """What is served, the champion and the best baseline on the queries that the gate judges, as
    Markdown: the gate's metric, and what is served minus each rival with its paired interval.
    """
    answers, label = judged(metrics, gate)
    best = answers.best_baseline(gate.metric)
    rows = [("served", share(answers.served.value(gate.metric)), "")]
    if metrics.champion:
        theirs = metrics.champion.of(gate.protocol, gate.population)
        title = f"champion version {metrics.champion.version}"
        recall = (
            NOT_COMPARABLE if metrics.champion.not_comparable else share(theirs.value(gate.metric))
        )
        rows.append((title, recall, gain(metrics.against_champion)))
    if best:
        value = share(answers.baselines[best].value(gate.metric))
        rows.append((f"best baseline, {best}", value, gain(metrics.against_baseline)))
    return markdown_table(("the same queries", label, f"gain of served, {PAIRED}"), rows)


def _differences(rival: str, difference: Any) -> dict[str, Any]:
    """What is served minus a rival, and its interval; empty without a rival."""
    if difference is None:
        return {}
    gain = f"gain_over_{rival}"
    return {gain: difference.mean, f"{gain}_low": difference.low, f"{gain}_high": difference.high}


def _cost(run: Run) -> dict[str, Any]:
    """Milliseconds of a query, and seconds of training and of all steps so far."""
    done = finished(run)
    index = done["build_index"].info.get("queries_per_s") if "build_index" in done else None
    training = done["train_towers"].seconds if "train_towers" in done else None
    return {
        "ms_per_query": 1000 / index if index else None,
        "seconds_training": training,
        "seconds_all_steps": sum(manifest.seconds for manifest in done.values()),
    }


def every_number(run: Run, report: GateReport) -> dict[str, Any]:
    """All numbers of a run by dotted key: metrics, and rows and seconds of its steps."""
    numbers = flatten(report.metrics.as_json())
    for name, manifest in finished(run).items():
        numbers[f"seconds.{name}"] = manifest.seconds
        numbers |= {f"rows.{name}.{what}": rows for what, rows in manifest.rows.items()}
    return numbers
