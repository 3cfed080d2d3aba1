"""Runs on small logs in the layouts of public ones, by their configs in configs/examples."""

from __future__ import annotations

from pathlib import Path

from dssm_core.config import Config
from dssm_core.runs.run import Run, create_run
from dssm_core.runs.table import STEPS
from dssm_core.runs.transaction import execute


def judged_run(config: Config, folder: Path) -> Run:
    """A run up to the gate, without MLflow."""
    run = create_run(config, folder, "run")
    steps = list(STEPS)
    for step in steps[: steps.index("recall_gate") + 1]:
        if step != "log_to_mlflow":
            execute(run, step)
    return run
