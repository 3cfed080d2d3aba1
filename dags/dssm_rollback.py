"""The Dag `dssm_rollback`: makes the previous champion, or another version, the champion again."""

from __future__ import annotations

from datetime import datetime, timedelta

from airflow.sdk import Param, dag, task

from tasks import publishing
from tasks.form import OPEN, TASK_DEFAULTS, config_param, optional

DOC = """
### Roll back

Makes `previous_champion`, or the version that you give, the champion again. The version is loaded
and queried first. Readers see the change in one step. Your reason is written to the tags of the
version and to `dssm history`. Then `dssm_publish` starts by itself. The page *Retrieval*, under
*Plugins* in the menu, shows which version is champion and to which one you would return.
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
            section=OPEN,
            description_md="Version to go back to. Empty: the previous champion. The page "
            "[Retrieval](/plugin/retrieval) shows the champion and the previous champion of today.",
        ),
        "reason": Param(
            type="string",
            minLength=3,
            maxLength=1000,
            title="Reason",
            section=OPEN,
            description_md="Why you go back. It is kept in the history.",
        ),
    },
    description="Makes an earlier version the champion again.",
    doc_md=DOC,
    tags=["retrieval", "dssm", "serving"],
    default_args=TASK_DEFAULTS,
)
def dssm_rollback() -> None:
    """Make an earlier version the champion."""
    task(publishing.roll_back)()


dssm_rollback()
