"""The tasks of the Dag dssm_sweep: plan the trials of a round, share what is equal, run them,
compare all trials so far, and start what follows.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from dssm_core.errors import ConfigError, DataError
from tasks.outcomes import tell
from tasks.settings import (
    SETTINGS,
    config_file,
    data_path,
    further_settings,
    origin,
    overrides,
    run_folder,
    runs_folder,
)

if TYPE_CHECKING:
    from dssm_core.tuning.sweep import Plan
    from dssm_core.tuning.trials import Trial

log = logging.getLogger(__name__)

FORM = ("config", "data", *SETTINGS)  # the fields that the winner's training gets too
SHARED_STEPS = ("ingest_data", "validate_data", "split_by_time")


def _plan(params: Mapping[str, Any]) -> Plan:
    from dssm_core.tuning.axes import read_axes
    from dssm_core.tuning.sweep import Plan

    return Plan(
        config_file(params["config"]),
        data_path(params["data"]),
        (*overrides(params), *further_settings(params["settings"])),
        read_axes(further_settings(params["axes"])),
        params["search"],
        params["trials"],
    )


def _earlier_trials(conf: Mapping[str, Any] | None) -> list[Trial]:
    """The trials of earlier rounds. A round passes them to the next one by the configuration of its
    Dag run, without a field of the form.
    """
    from dssm_core.runs.run import open_run
    from dssm_core.tuning.trials import from_json

    tried = (conf or {}).get("tried", [])
    return [from_json(raw, open_run(run_folder(raw["run"]))) for raw in tried]


def plan_trials() -> dict[str, Any]:
    """Choose the trials of this round, check their settings, and create their run folders."""
    from airflow.sdk import get_current_context

    from dssm_core.runs.run import note_origin
    from dssm_core.tuning import sweep
    from dssm_core.tuning.sweep_run import open_sweep
    from dssm_core.tuning.trials import to_json

    context = get_current_context()
    params = context["params"]
    dag_run = context["dag_run"]
    plan = _plan(params)
    name = (dag_run.conf or {}).get("sweep") or dag_run.run_id
    chosen = sweep.next_round(plan, _earlier_trials(dag_run.conf))
    trials = sweep.prepare(plan, chosen, runs_folder())
    for trial in trials:
        note_origin(trial.run, origin(dag_run))
    labels = [trial.combination.label for trial in trials]
    parent = open_sweep([trial.run for trial in trials], labels, name)
    tell(f"{len(labels)} trials: {'; '.join(labels)}")
    return {"sweep": name, "parent": parent, "trials": [to_json(trial) for trial in trials]}


def share_data(planned: dict[str, Any]) -> list[dict[str, Any]]:
    """Read, validate and split the log once; every trial reuses it.

    If the settings of the first trial fail here, the other trials execute these steps themselves.
    """
    trials: list[dict[str, Any]] = planned["trials"]
    try:
        begin_trial(trials[0])
    except (ConfigError, DataError) as error:
        log.warning("no data is shared, because %s fails: %s", trials[0]["label"], error)
    return trials


def begin_trial(planned: dict[str, Any]) -> str:
    """Execute the steps that trials share. Trials after the first one reuse their results."""
    from tasks.steps import run_step

    for name in SHARED_STEPS:
        run_step(planned["run"], name)
    return str(planned["run"])


def judge_trial(run: str) -> str:
    """Measure the index of a trial. Whether the gate passes it does not matter: trials are compared
    with each other.
    """
    from dssm_core.runs.run import open_run
    from dssm_core.tracking.runs import mlflow_run_url
    from tasks.links import ReportLink, push
    from tasks.steps import run_step

    run_step(run, "recall_gate")
    push(mlflow_run_url(open_run(run)), ReportLink())
    return run


def compare_trials(planned: dict[str, Any] | None) -> dict[str, Any]:
    """Log all trials side by side, and return the Dag run to start: the next round of the search,
    or the training of the winner.

    DataError if all trials failed. If a trial is cleared and judged again, another trial may win;
    its training is then another Dag run.
    """
    from airflow.sdk import get_current_context

    from dssm_core.runs.run import open_run
    from dssm_core.tuning.sweep import next_round
    from dssm_core.tuning.sweep_run import close_sweep
    from dssm_core.tuning.trials import from_json, result_line, results, trials_line, winner

    if planned is None:
        raise DataError("no trial was planned: the log of plan_trials says why")
    context = get_current_context()
    params = context["params"]
    indexes = range(len(planned["trials"]))
    finished = context["ti"].xcom_pull(task_ids="trial.judge_trial", map_indexes=indexes)
    trials = _earlier_trials(context["dag_run"].conf)
    for raw in planned["trials"]:
        ended = raw | {"failed": raw["run"] not in finished}
        trials.append(from_json(ended, open_run(raw["run"])))
    _push_page(trials, planned["parent"])
    rows = results(trials)
    for row in rows:
        log.info("%s", result_line(row))
    tell(f"sweep: {trials_line(rows)}")
    if next_round(_plan(params), trials):
        return _round_to_start(params, planned["sweep"], trials)
    close_sweep(runs_folder(), planned["parent"], rows)
    return _training_to_start(params, planned["sweep"], winner(trials).settings)


def _push_page(trials: list[Trial], parent: str) -> None:
    """Give the button "MLflow run" the address of the sweep, which lies beside its trials."""
    from dssm_core.tracking.runs import mlflow_run_url
    from tasks.links import MlflowRunLink, push

    pages = [page for trial in trials if (page := mlflow_run_url(trial.run))]
    if pages:
        push(f"{pages[0].rpartition('/')[0]}/{parent}", MlflowRunLink())


def _round_to_start(params: Mapping[str, Any], sweep: str, trials: list[Trial]) -> dict[str, Any]:
    """The Dag run of the next round, which gets all trials so far."""
    from dssm_core.tuning.trials import to_json

    conf = {**params, "sweep": sweep, "tried": [to_json(trial) for trial in trials]}
    return {"dag": "dssm_sweep", "run_id": f"{sweep}__{len(trials)}", "conf": conf}


def _training_to_start(
    params: Mapping[str, Any], sweep: str, settings: tuple[str, ...]
) -> dict[str, Any]:
    """The Dag run that trains with the winner's settings."""
    from dssm_core.runs.files import digest

    conf = {name: params[name] for name in FORM if params[name] is not None}
    conf["settings"] = [*(params["settings"] or ()), *settings]
    return {"dag": "dssm_training", "run_id": f"sweep__{sweep}__{digest(conf)[:6]}", "conf": conf}
