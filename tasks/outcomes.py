"""The outcome of a task in one line: in its log, and the last one as the note of its Dag run."""

from __future__ import annotations

import logging
from typing import Any

from airflow.listeners import hookimpl

from dssm_core.errors import masked

log = logging.getLogger(__name__)

XCOM_KEY = "outcome"
FAILED = " failed: "
NOTE_LETTERS = 500  # Airflow's notes have 1,000


def tell(line: str) -> None:
    """Log the outcome of the running task, and push it as an XCom."""
    log.info("%s", line)
    push(line)


def push(line: str) -> None:
    """Push the outcome of the running task as an XCom."""
    from airflow.sdk import get_current_context

    get_current_context()["ti"].xcom_push(key=XCOM_KEY, value=line)


def tell_failure(context: Any) -> None:
    """Push the first line of the error of a failed task as its outcome. Airflow calls this."""
    error, task = context.get("exception"), context["ti"]
    reason = (masked(error).strip().splitlines() or [type(error).__name__])[0]
    line = f"{task.task_id}{FAILED}{reason[:NOTE_LETTERS]}"
    task.xcom_push(key=XCOM_KEY, value=line)


@hookimpl
def on_dag_run_success(dag_run: Any, msg: str) -> None:
    """Make the last outcome that tasks of a Dag run have pushed its note; a person's note stays.

    The scheduler calls this when the Dag run ends, and commits the note with the run's state.
    """
    if not dag_run.note and (last := _last_outcome(dag_run)):
        dag_run.note = last


@hookimpl
def on_dag_run_failed(dag_run: Any, msg: str) -> None:
    """As for a success. A task that was killed has pushed nothing: the outcome is of the last task
    that ended.
    """
    if not dag_run.note and (last := _last_outcome(dag_run)):
        dag_run.note = last if FAILED in last else f"failed after: {last}"


def _last_outcome(dag_run: Any) -> str | None:
    from airflow.models.xcom import XComModel
    from sqlalchemy import select
    from sqlalchemy.orm import object_session

    session = object_session(dag_run)
    if session is None:
        return None
    pushed = select(XComModel).where(
        XComModel.dag_id == dag_run.dag_id,
        XComModel.run_id == dag_run.run_id,
        XComModel.key == XCOM_KEY,
    )
    last = session.scalars(pushed.order_by(XComModel.timestamp.desc()).limit(1)).first()
    return None if last is None else str(XComModel.deserialize_value(last))
