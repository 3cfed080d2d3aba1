"""What people see of the gate's verdict: its pictures, the report, and both in the MLflow run."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dssm_core.aliases import JSON
from dssm_core.evaluation.answers import ServedRun
from dssm_core.evaluation.measure import Curve
from dssm_core.evaluation.queries import EvaluationData
from dssm_core.report import page, plots
from dssm_core.report.headline import every_number, headline, rivals_table
from dssm_core.runs.files import disk_errors
from dssm_core.runs.gate_report import GateReport
from dssm_core.runs.layout import DATA_CHECKS_FILE, GATE_FILE, REPORT_FILE
from dssm_core.runs.run import Run
from dssm_core.tracking.client import connect, mlflow_errors, tracking_uri
from dssm_core.tracking.inputs import log_table
from dssm_core.tracking.origin import links
from dssm_core.tracking.points import is_number, log_numbers
from dssm_core.tracking.runs import DESCRIPTION_TAG, TAG_LENGTH, open_mlflow_run, read_sweep

PAGES = {"Report": REPORT_FILE, "Data checks": DATA_CHECKS_FILE}  # files of the MLflow run
METRICS_TABLE = "metrics.json"  # artifact: all numbers


def publish(
    opened: ServedRun,
    work: Path,
    data: EvaluationData,
    curves: Mapping[str, Curve],
    report: GateReport,
) -> None:
    """Draw the gate's pictures and the report into `work`, and log everything to MLflow.

    recall_curve.png is always drawn, rolling.png if the run has the rolling protocol.
    """
    run = opened.run
    with disk_errors(work):
        _draw(work, report, curves, run.config.gate.k)
    page.write(run, work, work / REPORT_FILE, opened, data)
    log_verdict(run, work, report)


def log_verdict(run: Run, work: Path, report: GateReport) -> None:
    """Log the gate's verdict, reasons, numbers and files to the MLflow run.

    The MLflow run is finished if the gate does not pass the model, or for a sweep's trial.
    """
    run_id = open_mlflow_run(run).run_id
    client = connect(run.runs)
    with mlflow_errors(tracking_uri(run.runs)):
        client.set_tag(run_id, "gate", "passed" if report.passed else "failed")
        client.set_tag(run_id, "gate.reasons", "\n".join(report.marked)[:TAG_LENGTH])
        pages = {title: file for title, file in PAGES.items() if _is_logged(run, work, file)}
        text = _description(run, report, links(run, client, run_id, pages))
        client.set_tag(run_id, DESCRIPTION_TAG, text)
        log_numbers(client, run_id, headline(run, report))
        log_table(client, run_id, _rows(every_number(run, report)), METRICS_TABLE)
        for file in (work / GATE_FILE, *sorted(work.glob("*.png"))):
            client.log_artifact(run_id, str(file), "gate")
        if (work / REPORT_FILE).is_file():
            client.log_artifact(run_id, str(work / REPORT_FILE))
        if not report.passed or read_sweep(run):
            client.set_terminated(run_id, "FINISHED")


def _is_logged(run: Run, work: Path, file: str) -> bool:
    """Whether a page is among the files of the MLflow run."""
    return any((folder / file).is_file() for folder in (work, run.step("validate_data")))


def _rows(numbers: Mapping[str, Any]) -> list[JSON]:
    """Numbers as the rows of a table."""
    return [{"metric": key, "value": value} for key, value in numbers.items() if is_number(value)]


def _draw(work: Path, report: GateReport, curves: Mapping[str, Curve], k: int) -> None:
    plots.recall_curve(curves, work / "recall_curve.png", k)
    if rolling := report.metrics.rolling:
        plots.by_hour(rolling.by_part, rolling.refresh_h, work / "rolling.png", k)


def _description(run: Run, report: GateReport, pages: str) -> str:
    """The description on the pages of the MLflow run and of the version, Markdown. pages: links,
    in the first line because MLflow folds what follows the first lines.
    """
    verdict = f"**The gate {'passed' if report.passed else 'did not pass'} the model**"
    verdict = " · ".join(filter(None, [verdict, pages]))
    reasons = "\n".join(f"- {reason}" for reason in report.marked)
    return "\n\n".join([verdict, rivals_table(report.metrics, run.config.gate), reasons])
