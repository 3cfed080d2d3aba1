"""The Dag `dssm_rollback`: the previous champion is champion again."""

from __future__ import annotations

from datetime import datetime, timedelta

from airflow.sdk import Param, dag, task

from tasks import publishing
from tasks.form import TASK_DEFAULTS, config_param, optional

DOC = """
### Go back

Makes `previous_champion`, or the version you give, champion again: it is loaded and asked first, the move is one step for readers, and your
reason goes to the version's tags and to `dssm history`. `dssm_publish` starts by itself afterwards.
"""


@dag(
    schedule=None,
    start_date=datetime(2017, 1, 1),
    catchup=False,
    max_active_runs=1,
    dagrun_timeout=timedelta(hours=1),
    params={
        "config": config_param(),
        "version": optional(
            "string",
            pattern="^[0-9]+$",
            title="Version",
            section="Run",
            description_md="The version to go back to. Empty: `previous_champion`.",
        ),
        "reason": Param(
            type="string",
            minLength=3,
            maxLength=1000,
            title="Reason",
            section="Run",
            description_md="Kept in the history.",
        ),
    },
    doc_md=DOC,
    tags=["retrieval", "dssm", "serving"],
    default_args=TASK_DEFAULTS,
)
def dssm_rollback() -> None:
    """One task."""
    task(publishing.roll_back)()


dssm_rollback()
