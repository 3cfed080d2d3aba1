"""The Dag `dssm_refresh`: between two trainings the champion's index follows the clicks, hour by
hour.
"""

from __future__ import annotations

import os
from datetime import datetime, timedelta

from airflow.sdk import dag, task

from tasks import refreshing
from tasks.form import TASK_DEFAULTS, config_param, data_param, optional

DOC = """
### The champion's index, up to now

Reads the latest clicks (days that have landed, and the log for the day that is going on), and writes the champion's bundle anew with
the same towers: item activity and ages, items that appeared since, users who have acted. `$DSSM_REFRESHED/MODEL/current` then moves to
it in one step; `lineage.json` in it says from which version and which clicks it was made. No alias moves: the version stays what it is.

* Scheduled by $DSSM_REFRESH_SCHEDULE (a cron line, UTC), hourly where days land by $DSSM_SCHEDULE; otherwise by hand.
* Nothing new is no error; no champion skips the task; no click at all fails it at once.
"""


def schedule() -> str | None:
    """Every hour where the log is read by a schedule at all."""
    return os.environ.get("DSSM_REFRESH_SCHEDULE") or (
        "@hourly" if os.environ.get("DSSM_SCHEDULE") else None
    )


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
            section="Run",
            description_md="The moment up to which clicks count, such as `2017-10-07T15:00:00Z`. Empty: the run's own.",
        ),
    },
    doc_md=DOC,
    tags=["retrieval", "dssm", "serving"],
    default_args=TASK_DEFAULTS,
)
def dssm_refresh() -> None:
    """One task."""
    task(refreshing.refresh_champion)()


dssm_refresh()
