"""Sweeps on real servers: a grid, a trial that fails, a search in rounds."""

from __future__ import annotations

import pytest

from dssm_core.runs.run import open_run
from tests.conftest import TRAINING, wait_until
from tests.e2e.airflow_runs import SWEEP, ended, review, version

pytestmark = pytest.mark.e2e


def winners_training(airflow, run_id):
    """The id of the run that trains the winner of a sweep."""
    return airflow.xcom(SWEEP, run_id, "compare_trials")["run_id"]


def test_a_sweep_registers_its_winner_and_a_failed_trial_does_not_stop_the_others(airflow, mlflow):
    axes = ["loss=sampled_softmax,bce", "train.learning_rate=0.002,1e30"]
    run_id = airflow.trigger(SWEEP, {"config": "swept", "epochs": 1, "axes": axes})
    ended(airflow, SWEEP, run_id)
    trials = airflow.get(f"dags/{SWEEP}/dagRuns/{run_id}/taskInstances", limit=100)[
        "task_instances"
    ]
    states = {
        task["rendered_map_index"]: task["state"]
        for task in trials
        if task["task_id"] == "trial.train_towers"
    }
    assert states == {
        f"loss={loss}, train.learning_rate={rate}": state
        for loss in ("sampled_softmax", "bce")
        for rate, state in (("0.002", "success"), ("1e+30", "failed"))
    }
    training = winners_training(airflow, run_id)
    wait_until(lambda: airflow.settled(TRAINING, training), "the winner waits for its review")
    assert review(airflow, training, "Keep as challenger", "a sweep's winner")[0] == "success"
    winner = airflow.xcom(SWEEP, run_id, "compare_trials")["conf"]["settings"]
    trained = open_run(airflow.xcom(TRAINING, training, "ingest_data")).config
    assert winner == [f'loss.kind="{trained.loss.kind}"', "train.learning_rate=0.002"]
    assert trained.train.learning_rate == 0.002
    (registered,) = mlflow.search_model_versions("name='dssm-swept'")
    assert (
        registered.version
        == version(airflow, training)
        == mlflow.get_model_version_by_alias("dssm-swept", "challenger").version
    )


def test_a_search_runs_in_rounds_and_trains_the_best_trial(airflow, mlflow):
    """Two trials in two rounds: the first run of the Dag starts the second, and both trials are
    children of one MLflow run.
    """
    axes = ["train.learning_rate=0.001..0.004 log"]
    first = airflow.trigger(
        SWEEP, {"config": "swept", "epochs": 1, "axes": axes, "search": "optuna", "trials": 2}
    )
    second = f"{first}__1"
    for run_id in (first, second):
        wait_until(lambda run_id=run_id: airflow.started(SWEEP, run_id), f"{run_id} has begun")
        ended(airflow, SWEEP, run_id)
        assert airflow.state(SWEEP, run_id) == "success"
    training = winners_training(airflow, second)
    assert review(airflow, training, "Keep as challenger", "a search's winner")[0] == "success"
    (parent,) = mlflow.search_runs(
        [mlflow.get_experiment_by_name("swept").experiment_id], f"tags.`dssm.sweep` = '{first}'"
    )
    assert (
        parent.info.status,
        parent.data.metrics["trials"],
        parent.data.metrics["trials_failed"],
    ) == ("FINISHED", 2, 0)
    assert {"trials.json", "trials.png", "parallel.png"} <= {
        file.path for file in mlflow.list_artifacts(parent.info.run_id)
    }
    assert open_run(
        airflow.xcom(TRAINING, training, "ingest_data")
    ).config.train.learning_rate == float(parent.data.tags["dssm.winner"].partition("=")[2])
