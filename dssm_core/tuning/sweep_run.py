"""The MLflow run of a sweep: the parent of its trials' runs, with a table and pictures of them."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from pathlib import Path

from dssm_core.aliases import JSON
from dssm_core.report import plots
from dssm_core.runs.files import write_atomically
from dssm_core.runs.layout import SWEEP_FILE
from dssm_core.runs.run import Run, read_origin
from dssm_core.tracking.client import connect, mlflow_errors, tracking_uri
from dssm_core.tracking.inputs import log_table
from dssm_core.tracking.origin import dag_run_link
from dssm_core.tracking.points import log_numbers
from dssm_core.tracking.runs import (
    DESCRIPTION_TAG,
    TAG_LENGTH,
    experiment_of,
    find_or_create,
    mlflow_run_url,
)
from dssm_core.tuning.trials import trials_line

COLUMNS = ("label", "recall", "low", "high", "train_seconds", "ms_per_query", "run")


def open_sweep(trials: Sequence[Run], labels: Sequence[str], name: str) -> str:
    """Find or create the MLflow run of a sweep and store it in its trials' folders; returns its id.

    A trial that an earlier sweep has run remains that sweep's child; the table of this sweep links
    to it all the same.
    """
    first = trials[0]
    client = connect(first.runs)
    with mlflow_errors(tracking_uri(first.runs)):
        tags = {"dssm.sweep": name} | read_origin(first)
        experiment_id = experiment_of(first, client)
        run_id = find_or_create(client, experiment_id, f"sweep {name}", tags, "dssm.sweep")
    for run, label in zip(trials, labels, strict=True):
        if not (run.root / SWEEP_FILE).is_file():
            sweep = {"run_id": run_id, "label": label}
            write_atomically(run.root / SWEEP_FILE, json.dumps(sweep).encode())
    return run_id


def close_sweep(runs: Path, run_id: str, results: Sequence[JSON]) -> None:
    """Log the results of a sweep, as `trials.results` returns them, and finish its MLflow run.

    Logs a table, pictures and the winner.
    """
    client = connect(runs)
    finished = [row for row in results if row["recall"] is not None]
    numbers = {"trials": len(results), "trials_failed": len(results) - len(finished)}
    best = {f"best.{row['metric']}": row["recall"] for row in finished[:1]}
    with mlflow_errors(tracking_uri(runs)), tempfile.TemporaryDirectory() as folder:
        log_table(client, run_id, [_table_row(row) for row in results], "trials.json")
        log_numbers(client, run_id, best | numbers)
        if finished:
            client.set_tag(run_id, "dssm.winner", finished[0]["label"][:TAG_LENGTH])
            client.set_tag(run_id, DESCRIPTION_TAG, _description(results))
            for draw in (plots.trials, plots.parallel):
                picture = Path(folder) / f"{draw.__name__}.png"
                draw(finished, picture)
                client.log_artifact(run_id, str(picture))
        client.set_terminated(run_id, "FINISHED" if finished else "FAILED")


def _description(results: Sequence[JSON]) -> str:
    """The description on the page of the sweep's MLflow run, Markdown."""
    lines = [
        f"{trials_line(results)} (measured on the last training days)",
        "trials.json, trials.png (recall against seconds and milliseconds) and parallel.png are "
        "among the artifacts.",
        dag_run_link(Run(Path(results[0]["run"]))),
    ]
    return "\n\n".join(filter(None, lines))


def _table_row(result: JSON) -> JSON:
    """A trial as a row of the table: a column for each axis, and the URL of its MLflow run."""
    state = "failed" if result["recall"] is None else "done"
    values = {name: result[name] for name in COLUMNS}
    axes = {name: str(value) for name, value in result["chosen"].items()}
    url = mlflow_run_url(Run(Path(result["run"])))
    return {"state": state} | values | axes | {"mlflow_run": url}
