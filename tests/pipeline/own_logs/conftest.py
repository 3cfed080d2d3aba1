"""Runs on small logs in the layouts of public ones, by their configs in configs/examples and by
what `dssm init` proposes.
"""

from __future__ import annotations

from pathlib import Path

from dssm_core.config import Config, read_config
from dssm_core.inspection.proposal import propose
from dssm_core.runs.run import Run, create_run
from dssm_core.runs.table import STEPS
from dssm_core.runs.transaction import execute

QUICK = ("evaluation.bootstrap=20", "train.device=cpu")  # for a test: nothing of the log


def judged_run(config: Config, folder: Path) -> Run:
    """A run up to the gate, without MLflow."""
    run = create_run(config, folder, "run")
    steps = list(STEPS)
    for step in steps[: steps.index("recall_gate") + 1]:
        if step != "log_to_mlflow":
            execute(run, step)
    return run


def proposed(log: Path, folder: Path, edits: dict[str, str] | None = None) -> Config:
    """The config that `dssm init` writes for a log, in `folder`, after edits of its text: each is a
    text that it holds and what a person writes instead.
    """
    text = propose(log, "my-log", {}).text
    for old, new in (edits or {}).items():
        assert text.count(old) == 1, (old, text)
        text = text.replace(old, new)
    file = folder / "my-log.yaml"
    file.write_text(text)
    return read_config(file, None, QUICK)
