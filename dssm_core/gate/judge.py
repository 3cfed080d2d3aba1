"""The step recall_gate: measure, compare with the champion, apply the rules, write and log."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path

from dssm_core.config import Config
from dssm_core.evaluation.answers import ServedRun, open_served
from dssm_core.evaluation.evaluate import Evaluated, evaluate
from dssm_core.evaluation.measure import Curve, difference
from dssm_core.evaluation.queries import EvaluationData, read_evaluation_data
from dssm_core.gate.champion import MeasuredChampion, measure_champion
from dssm_core.gate.rules import decide, judged
from dssm_core.runs.files import write_atomically
from dssm_core.runs.gate_report import GateMetrics, GateReport, Stored
from dssm_core.runs.layout import CURVES_FILE, GATE_FILE
from dssm_core.runs.manifest import Outcome
from dssm_core.runs.run import Run

# Called with the opened run, the step's folder, the data, the recall curves and the report.
Publish = Callable[[ServedRun, Path, EvaluationData, Mapping[str, Curve], GateReport], None]


def judge(run: Run, work: Path, publish: Publish) -> Outcome:
    """Step function. Writes gate.json and curves.json; a model that does not pass is an outcome,
    not an error.

    publish: called once both are written, to show the verdict to people. info: the GateReport.
    """
    data = read_evaluation_data(run)
    with open_served(run) as opened:
        evaluated = evaluate(opened, data)
        champion = measure_champion(run, data)
        metrics = compare(evaluated, champion, run.config)
        curves = dict(evaluated.curves)
        if champion is not None and champion.curve is not None:
            curves[f"champion v{champion.report.version}"] = champion.curve
        compared = champion.compared if champion else None
        checks = decide(metrics, run.config.gate, compared)
        report = GateReport(
            passed=all(check.passed for check in checks),
            reasons=[check.reason for check in checks],
            met=[check.passed for check in checks],
            metrics=metrics,
        )
        write_files(work, report, curves)
        publish(opened, work, data, curves, report)
    rows = metrics.queries.as_json() if metrics.queries else {}
    return Outcome(rows=rows, info=report.as_json())


def compare(evaluated: Evaluated, champion: MeasuredChampion | None, config: Config) -> GateMetrics:
    """The metrics with the champion, and with what is served minus the best baseline and minus the
    champion, each on the queries that the gate judges.
    """
    metrics = evaluated.metrics
    recalls = evaluated.recalls
    updates: dict[str, Stored | None] = {}
    best = judged(metrics, config.gate)[0].best_baseline(config.gate.metric)
    if best is not None:
        updates["against_baseline"] = difference(best, recalls["served"], recalls[best], config)
    if champion is not None:
        updates["champion"] = champion.report
        if champion.recalls is not None:
            name = f"champion version {champion.report.version}"
            updates["against_champion"] = difference(
                name, recalls["served"], champion.recalls, config
            )
    return metrics.model_copy(update={name: part for name, part in updates.items() if part})


def write_files(work: Path, report: GateReport, curves: Mapping[str, Curve]) -> None:
    """Write gate.json and curves.json."""
    content = json.dumps(report.as_json(), indent=2, allow_nan=False)
    write_atomically(work / GATE_FILE, content.encode())
    plain = {
        name: {"mean": curve.mean.round(6).tolist(), "error": curve.error.round(6).tolist()}
        for name, curve in curves.items()
    }
    write_atomically(work / CURVES_FILE, json.dumps(plain).encode())
