"""The tasks of the Dag dssm_sweep: make the trials of a round, share what is the same, compare all
so far, hand on.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from dssm_core.errors import ConfigError, DataError
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
    from dssm_core.tuning.sweep import Plan, Tried

FORM = ("config", "data", *SETTINGS)  # what the winner's training takes over


def _plan(params: Mapping[str, Any]) -> Plan:
    from dssm_core.tuning.sweep import Plan, read_axes

    settings = (*overrides(params), *further_settings(params["settings"]))
    axes, total = read_axes(further_settings(params["axes"])), params["trials"]
    return Plan(
        config_file(params["config"]),
        data_path(params["data"]),
        settings,
        axes,
        params["search"],
        total,
    )


def _before(params: Mapping[str, Any]) -> list[Tried]:
    """The trials of the rounds before this one."""
    from dssm_core.runs.run import open_run
    from dssm_core.tuning.sweep import from_json

    return [from_json(told, open_run(run_folder(told["run"]))) for told in params["tried"]]


def plan_trials() -> dict[str, Any]:
    """Choose this round's trials, check them at once, and make a run folder for each."""
    from airflow.sdk import get_current_context

    from dssm_core.runs.run import note_origin
    from dssm_core.tuning import sweep
    from dssm_core.tuning.sweep_run import open_sweep

    params, dag_run = get_current_context()["params"], get_current_context()["dag_run"]
    plan, name = _plan(params), params["sweep"] or dag_run.run_id
    made = sweep.prepare(plan, sweep.next_round(plan, _before(params)), runs_folder())
    for each in made:
        note_origin(each.run, origin(dag_run))
    parent = open_sweep([each.run for each in made], [each.trial.label for each in made], name)
    return {"sweep": name, "parent": parent, "trials": [sweep.as_json(each) for each in made]}


def share_data(planned: dict[str, Any]) -> list[dict[str, Any]]:
    """Read, check and split the log once: every trial reuses it. Where the first trial's settings
    cannot, the others try for themselves.
    """
    trials: list[dict[str, Any]] = planned["trials"]
    try:
        begin_trial(trials[0])
    except (ConfigError, DataError) as error:
        print(f"not shared, {trials[0]['label']} fails: {error}")
    return trials


def begin_trial(trial: dict[str, Any]) -> str:
    """The steps that trials share: executed by the first, taken over by the others."""
    from tasks.steps import run_step

    for name in ("ingest_data", "validate_data", "split_by_time"):
        run_step(trial["run"], name)
    return str(trial["run"])


def judge_trial(run: str) -> str:
    """Measure the trial's index. Whether it would pass a gate is not asked: it is compared with the
    other trials.
    """
    from tasks.steps import run_step

    return run_step(run, "recall_gate")


def compare_trials(planned: dict[str, Any] | None) -> dict[str, Any]:
    """The Dag run that follows: the search's next round, or, with all trials side by side in
    MLflow, the winner's training.

    Fails where no trial came to its end. A trial that was cleared and judged anew may make another
    one the winner, whose training is then another Dag run.
    """
    from airflow.sdk import get_current_context

    from dssm_core.runs.files import digest
    from dssm_core.runs.run import open_run
    from dssm_core.tuning import sweep
    from dssm_core.tuning.sweep_run import close_sweep

    if planned is None:
        raise DataError("no trial was planned: the log of plan_trials says why")
    context = get_current_context()
    params, trials = context["params"], planned["trials"]
    ended = context["ti"].xcom_pull(task_ids="trial.judge_trial", map_indexes=range(len(trials)))
    told = [trial | {"failed": trial["run"] not in ended} for trial in trials]
    tried = [
        *_before(params),
        *(sweep.from_json(each, open_run(each["run"])) for each in told),
    ]
    for row in (found := sweep.results(tried)):
        print(row)
    if sweep.next_round(_plan(params), tried):
        conf = {
            **params,
            "sweep": planned["sweep"],
            "tried": [sweep.as_json(each) for each in tried],
        }
        return {"dag": "dssm_sweep", "run_id": f"{planned['sweep']}__{len(tried)}", "conf": conf}
    close_sweep(runs_folder(), planned["parent"], found)
    form = {name: params[name] for name in FORM if params[name] is not None}
    conf = form | {"settings": [*params["settings"], *sweep.winner(tried).settings]}
    return {
        "dag": "dssm_training",
        "run_id": f"sweep__{planned['sweep']}__{digest(conf)[:6]}",
        "conf": conf,
    }
