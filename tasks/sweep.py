"""The tasks of the Dag dssm_sweep: make the trials, share what is the same, compare them, hand the winner on."""

from __future__ import annotations

from typing import Any

from tasks.settings import config_file, data_path, origin, overrides, runs_folder


def plan_trials() -> list[dict[str, str]]:
    """Check every combination of the axes at once and make a run folder for each."""
    from airflow.sdk import get_current_context

    from dssm_core import artifacts, registry, sweep

    params = get_current_context()["params"]
    wanted = sweep.trials(sweep.read_axes(params["axes"]))
    file, data = config_file(params["config"]), data_path(params["data"])
    made = sweep.prepare(file, data, [*overrides(params), *params["settings"]], wanted, runs_folder())
    dag_run = get_current_context()["dag_run"]
    parent = registry.open_sweep(made, [trial.label for trial in wanted], dag_run.run_id)
    for run in made:
        artifacts.note_origin(run, origin(dag_run))
    return [{"label": trial.label, "run": str(run.root), "parent": parent} for trial, run in zip(wanted, made, strict=True)]


def share_data(trials: list[dict[str, str]]) -> list[dict[str, str]]:
    """Read, check and split the log once: every trial reuses it."""
    from tasks.steps import run_step

    for name in ("ingest_data", "validate_data", "split_by_time"):
        run_step(trials[0]["run"], name)
    return trials


def begin_trial(trial: dict[str, str]) -> str:
    """Take over the shared steps."""
    from tasks.steps import run_step

    for name in ("ingest_data", "validate_data", "split_by_time"):
        run_step(trial["run"], name)
    return trial["run"]


def judge_trial(run: str) -> str:
    """Measure the trial's index. Whether it would pass a gate is not asked: it is compared with the other trials."""
    from tasks.steps import run_step

    return run_step(run, "recall_gate")


def compare_trials(trials: list[dict[str, str]]) -> dict[str, Any]:
    """Put the trials side by side in MLflow; the settings of the winner for the Dag dssm_training. Fails where no trial came to its end."""
    from airflow.sdk import get_current_context

    from dssm_core import artifacts, registry, sweep

    params = get_current_context()["params"]
    wanted, labels = sweep.trials(sweep.read_axes(params["axes"])), [trial["label"] for trial in trials]
    found = sweep.results(labels, [artifacts.open_run(trial["run"]) for trial in trials])
    registry.close_sweep(runs_folder(), trials[0]["parent"], found)
    best = sweep.winner(found, wanted)
    for row in found:
        print(row)
    form = {name: params[name] for name in ("config", "data", "test_day", "seed", "epochs", "device", "gate_floor")}
    return {name: value for name, value in form.items() if value is not None} | {"settings": [*params["settings"], *best.settings]}
