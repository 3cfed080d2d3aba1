"""The outcome of a task in one line: in its log, and the last one as the note of its Dag run."""

from __future__ import annotations

import logging
from typing import Any

from airflow.listeners import hookimpl

log = logging.getLogger(__name__)

XCOM_KEY = "outcome"


def tell(line: str) -> None:
    """Log the outcome of the running task, and push it as an XCom."""
    log.info("%s", line)
    push(line)


def push(line: str) -> None:
    """Push the outcome of the running task as an XCom."""
    from airflow.sdk import get_current_context

    get_current_context()["ti"].xcom_push(key=XCOM_KEY, value=line)


@hookimpl
def on_dag_run_success(dag_run: Any, msg: str) -> None:
    """Make the last outcome that tasks of a Dag run have pushed its note; a person's note stays.

    The scheduler calls this when the Dag run ends, and commits the note with the run's state.
    """
    from airflow.models.xcom import XComModel
    from sqlalchemy import select
    from sqlalchemy.orm import object_session

    session = object_session(dag_run)
    if session is None or dag_run.note:
        return
    pushed = select(XComModel).where(
        XComModel.dag_id == dag_run.dag_id,
        XComModel.run_id == dag_run.run_id,
        XComModel.key == XCOM_KEY,
    )
    last = session.scalars(pushed.order_by(XComModel.timestamp.desc()).limit(1)).first()
    if last is not None:
        dag_run.note = str(XComModel.deserialize_value(last))
