"""What people see of the gate's verdict: its pictures, the report, and both in the MLflow run."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from dssm_core.aliases import JSON
from dssm_core.evaluation.evaluate import Curve
from dssm_core.evaluation.queries import Window
from dssm_core.registry import versions as registry
from dssm_core.report import page, plots
from dssm_core.runs.files import disk_errors
from dssm_core.runs.layout import REPORT_FILE
from dssm_core.runs.run import Run


def publish(run: Run, work: Path, window: Window, curves: Mapping[str, Curve], info: JSON) -> None:
    """Draw the gate's pictures and the report into `work`, and log everything to MLflow.

    recall_curve.png is always drawn, rolling.png if the gate's protocol is `rolling`.
    """
    with disk_errors(work):
        _draw(work, info, curves, run.config.gate.k)
    page.write(run, work, work / REPORT_FILE, window)
    registry.log_gate(run, work, info)


def _draw(work: Path, info: JSON, curves: Mapping[str, Curve], k: int) -> None:
    plots.recall_curve(curves, work / "recall_curve.png", k)
    if rolling := info["metrics"].get("rolling"):
        plots.by_hour(rolling["by_part"], rolling["refresh_h"], work / "rolling.png", k)
