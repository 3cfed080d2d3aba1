"""The Dag `ingest_interactions`: a day of the log arrives, and the windows that waited for it are
trained.
"""

from __future__ import annotations

import os
from datetime import datetime, timedelta

from airflow.providers.standard.operators.trigger_dagrun import TriggerDagRunOperator
from airflow.sdk import CronPartitionTimetable, PartitionedAtRuntime, dag, task

from tasks import landing
from tasks.form import TASK_DEFAULTS, config_param, data_param, optional
from tasks.windows import INTERACTIONS, check_daily

DOC = """
### A day arrives

Keeps one local day of the log beside the others that are there. When the days of a window are complete, `dssm_training` starts for
its last day, once.

* Scheduled by $DSSM_SCHEDULE (a cron line, in $DSSM_TIMEZONE, where the day begins): the day before it fires. **Backfill** a range to
  land past days; each day starts the windows that it completes.
* A day that is there already, unchanged, is skipped. One that **differs** replaces it, and the windows that were trained on it are
  trained anew; no other is.
"""


def schedule() -> CronPartitionTimetable | PartitionedAtRuntime:
    """Daily at $DSSM_SCHEDULE in $DSSM_TIMEZONE, for the day before; by hand only where it is not
    set.
    """
    cron, timezone = os.environ.get("DSSM_SCHEDULE"), os.environ.get("DSSM_TIMEZONE") or "UTC"
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
            section="Run",
            description_md="The local day to keep. Empty: the partition's, which a scheduled or backfilled run has.",
        ),
    },
    doc_md=DOC,
    tags=["retrieval", "dssm", "data"],
    default_args=TASK_DEFAULTS,
)
def ingest_interactions() -> None:
    """Keep the day; then wake the windows that waited for it, or repeat those that it was replaced
    in.
    """
    landed = task(landing.land_day)()
    task(landing.announce, outlets=[INTERACTIONS])(landed)
    TriggerDagRunOperator.partial(
        task_id="train_again",
        trigger_dag_id="dssm_training",
        trigger_run_id="replaced__{{ task.conf['test_day'] }}__{{ run_id }}",
        skip_when_already_exists=True,
    ).expand(conf=task(landing.stale_windows)(landed))


ingest_interactions()
