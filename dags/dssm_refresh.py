"""The Dag `dssm_refresh`: rebuilds the champion's index from the latest clicks."""

from __future__ import annotations

import os
from datetime import datetime, timedelta

from airflow.sdk import dag, task

from tasks import refreshing
from tasks.form import OPEN, TASK_DEFAULTS, config_param, data_param, optional

DOC = """
### Refresh the champion's index

Reads the latest clicks: the landed days, and the log for the current day. Rebuilds the champion's
bundle with the same towers: user embeddings, new items, and the activity and age of all items.
Then `$DSSM_REFRESHED/MODEL/current` points to the new bundle in one step. Its `lineage.json` says
from which version and clicks it was made. No MLflow alias moves, and no version changes.

* Schedule: $DSSM_REFRESH_SCHEDULE (a cron expression, in UTC). If it is not set, the Dag runs
  hourly if $DSSM_SCHEDULE is set, and otherwise only when you trigger it.
* If there are no new clicks, the task succeeds. If there is no champion, it is skipped. If there
  are no clicks at all, it fails without a retry.
"""


def schedule() -> str | None:
    """$DSSM_REFRESH_SCHEDULE, or hourly if days land by a schedule, or None."""
    hourly = "@hourly" if os.environ.get("DSSM_SCHEDULE") else None
    return os.environ.get("DSSM_REFRESH_SCHEDULE") or hourly


@dag(
    schedule=schedule(),
    start_date=datetime(2017, 1, 1),
    catchup=False,
    max_active_runs=1,
    dagrun_timeout=timedelta(hours=1),
    params={
        "config": config_param(),
        "data": data_param(),
        "as_of": optional(
            "string",
            format="date-time",
            title="As of",
            section=OPEN,
            description_md="Time up to which clicks count, such as 2017-10-07T15:00:00Z. "
            "Empty: the time of the run.",
        ),
    },
    description="Refreshes the champion's vectors and index from the latest clicks.",
    doc_md=DOC,
    tags=["retrieval", "dssm", "serving"],
    default_args=TASK_DEFAULTS,
)
def dssm_refresh() -> None:
    """Refresh the champion of the config."""
    task(refreshing.refresh_champion)()


dssm_refresh()
