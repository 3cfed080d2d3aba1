"""The step `log_to_mlflow`: what is known of a run after its training goes into its MLflow run."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from dssm_core.aliases import JSON, Doubles
from dssm_core.data.drift import FILE as DRIFT_FILE
from dssm_core.data.drift import Drift
from dssm_core.data.drift import load as load_drift
from dssm_core.report import plots
from dssm_core.runs.layout import HISTORY_FILE
from dssm_core.runs.manifest import Outcome
from dssm_core.runs.pipeline import finished
from dssm_core.runs.run import Run
from dssm_core.tracking.client import connect, mlflow_errors, tracking_uri
from dssm_core.tracking.inputs import log_data_inputs
from dssm_core.tracking.points import log_history
from dssm_core.tracking.runs import lineage_tags, log_data_docs, open_mlflow_run

if TYPE_CHECKING:
    from dssm_core.tracking.client import MlflowClient


def log_to_mlflow(run: Run, work: Path) -> Outcome:
    """Step function. Logs the training history, data inputs, plots, Data Docs and
    manifests; info: run_id, url.
    """
    opened = open_mlflow_run(run)
    client = connect(run.runs)
    history = _history(run)
    _draw(run, history, work)
    with mlflow_errors(tracking_uri(run.runs)):
        log_history(client, opened.run_id, history)
        log_data_inputs(client, run, opened.run_id)
        for picture in sorted(work.glob("*.png")):
            client.log_artifact(opened.run_id, str(picture), "plots")
        log_data_docs(client, run, opened.run_id)
        log_drift(client, run, opened.run_id)
        _log_manifests(client, run, opened.run_id)
        for tag, value in lineage_tags(run).items():
            client.set_tag(opened.run_id, tag, value)
    return Outcome({"points": len(history)}, asdict(opened))


def log_drift(client: MlflowClient, run: Run, run_id: str) -> None:
    """Log how the training days differ, a point a day, and the file that a later run compares with.

    `window/drift_volume` is a point's only value of that name; of the columns it is the largest
    one.
    """
    drift = load_drift(run.step("validate_data"))
    if drift is None:
        return
    log_history(client, run_id, [_drift_point(drift, day) for day in range(len(drift.days))])
    client.log_artifact(run_id, str(run.step("validate_data") / DRIFT_FILE))


def _drift_point(drift: Drift, day: int) -> JSON:
    """The largest change of a day by kind; a column's name may not be a valid metric's."""
    largest: dict[str, float] = {}
    for name, changes in drift.changes.items():
        kind = f"window.drift_{name.partition('.')[0]}"
        change = changes[day]
        if change is not None:
            largest[kind] = max(change, largest.get(kind, change))
    return {"step": day} | largest


def _history(run: Run) -> list[JSON]:
    lines = (run.step("train_towers") / HISTORY_FILE).read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines if line]


def _log_manifests(client: MlflowClient, run: Run, run_id: str) -> None:
    for name, manifest in finished(run).items():
        client.log_text(run_id, manifest.model_dump_json(indent=2), f"manifests/{name}.json")


def _draw(run: Run, history: list[JSON], work: Path) -> None:
    plots.loss_curve(history, work / "loss.png")
    drawn, clicks = _shares(run)
    plots.sampling(drawn, clicks, work / "sampling.png")


def _shares(run: Run) -> tuple[Doubles, Doubles]:
    """Each item's share of the sampler's draws at the last refresh and of the training clicks.

    Both [N]. A loss that compares with every item draws all items equally.
    """
    import torch

    from dssm_core.features.dataset import bucket_times, load_prepared
    from dssm_core.sampling.sampler_tables import load_sampler_tables, samplers_of
    from dssm_core.sampling.samplers.protocol import mean_share

    folder = run.step("sample_negatives")
    prepared = load_prepared(folder)
    items = torch.arange(1, prepared.schema.items)
    clicks = torch.bincount(prepared.log.item, minlength=prepared.schema.items)[1:].double()
    drawn = torch.full((len(items),), 1 / len(items)).double()
    for name, sampler in list(samplers_of(run.config).items())[:1]:
        tables = load_sampler_tables(folder, "refit", name)
        last = len(bucket_times(run.config, prepared.log)) - 1
        drawn = mean_share(sampler, tables, last, items, prepared.log)
    return drawn.numpy(), (clicks / clicks.sum()).numpy()
