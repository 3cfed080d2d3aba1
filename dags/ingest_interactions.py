"""The Dag `ingest_interactions`: lands a day of the log, and starts the windows it completes."""

from __future__ import annotations

import os
from datetime import datetime, timedelta

from airflow.providers.standard.operators.trigger_dagrun import TriggerDagRunOperator
from airflow.sdk import CronPartitionTimetable, PartitionedAtRuntime, dag, task

from tasks import landing
from tasks.form import OPEN, TASK_DEFAULTS, config_param, data_param, optional
from tasks.windows import INTERACTIONS, check_daily

DOC = """
### Land a day

Copies one local day of the log to the folder of landed days. When all days of a window have landed,
one run of `dssm_training` starts for its last day.

* Schedule: $DSSM_SCHEDULE (a cron expression in the time zone $DSSM_TIMEZONE, in which days begin).
  A run lands the day before it. To land past days, **Backfill** a range of days; each day starts
  the windows that it completes.
* A day that was landed before and has not changed is skipped. If it **has changed**, it is
  replaced, and the windows that were trained on it are trained again; no other windows are.
"""


def schedule() -> CronPartitionTimetable | PartitionedAtRuntime:
    """Daily at $DSSM_SCHEDULE in $DSSM_TIMEZONE, for the day before. If $DSSM_SCHEDULE is not set,
    the Dag only runs when it is triggered.
    """
    cron = os.environ.get("DSSM_SCHEDULE")
    timezone = os.environ.get("DSSM_TIMEZONE") or "UTC"
    if not cron:
        return PartitionedAtRuntime()
    check_daily(cron, timezone)
    return CronPartitionTimetable(cron, timezone=timezone, run_offset=-1, key_format="%Y-%m-%d")


@dag(
    schedule=schedule(),
    start_date=datetime(2017, 1, 1),
    catchup=False,
    max_active_runs=1,
    dagrun_timeout=timedelta(hours=2),
    params={
        "config": config_param(),
        "data": data_param(),
        "day": optional(
            "string",
            format="date",
            title="Day",
            section=OPEN,
            description_md="Local day to land. Empty: the day of the partition, for a scheduled or "
            "backfilled run.",
        ),
    },
    description="Lands one day of the log, and starts the windows that it completes.",
    doc_md=DOC,
    tags=["retrieval", "dssm", "data"],
    default_args=TASK_DEFAULTS,
)
def ingest_interactions() -> None:
    """Land the day, then start the windows that it completes, or repeat those that it changes."""
    landed = task(landing.land_day)()
    task(landing.announce, outlets=[INTERACTIONS])(landed)
    TriggerDagRunOperator.partial(
        task_id="train_again",
        trigger_dag_id="dssm_training",
        trigger_run_id="replaced__{{ task.conf['test_day'] }}__{{ run_id }}",
        skip_when_already_exists=True,
    ).expand(conf=task(landing.stale_windows)(landed))


ingest_interactions()
