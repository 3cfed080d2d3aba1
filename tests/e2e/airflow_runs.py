"""Runs of the Dags on real servers: wait for them, answer their reviews, read their results."""

from __future__ import annotations

from tests.conftest import PATIENCE_S, TRAINING, complete, wait_until

INGEST = "ingest_interactions"
LOOKALIKE = "dssm_lookalike"
REFRESH = "dssm_refresh"
SWEEP = "dssm_sweep"


def ended(airflow, dag, run_id):
    """Wait until a run without a review has ended; returns the states of its tasks."""
    airflow.wait(dag, run_id, PATIENCE_S)
    return {name: task["state"] for name, task in airflow.tasks(dag, run_id).items()}


def settle(airflow, run_id):
    wait_until(lambda: airflow.settled(TRAINING, run_id), f"{run_id} waits for its review")
    assert airflow.tasks(TRAINING, run_id)["review"]["state"] == "awaiting_input", airflow.tasks(
        TRAINING, run_id
    )
    return run_id


def review(airflow, run_id, option, reason):
    """Answer a review as on its page; returns the state and the log of the task that applies the
    answer.
    """
    settle(airflow, run_id)
    complete(airflow, run_id, option, reason)
    task = airflow.tasks(TRAINING, run_id)["promote"]
    return task["state"], airflow.log_text(TRAINING, run_id, "promote", max(1, task["try_number"]))


def loggers(airflow, dag, run_id):
    """The names of all loggers that have written to the logs of a run's tasks."""
    lines = [
        line
        for name, task in airflow.tasks(dag, run_id).items()
        if task["try_number"]
        for line in airflow.log_lines(dag, run_id, name, task["try_number"])
    ]
    return {line["logger"] for line in lines if isinstance(line, dict) and line.get("logger")}


def version(airflow, run_id):
    return str(airflow.xcom(TRAINING, run_id, "register_model", "review")["version"])
