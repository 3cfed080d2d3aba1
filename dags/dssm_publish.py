"""The Dag `dssm_publish`: whoever became champion, by whatever way, is written down and published."""

from __future__ import annotations

from datetime import datetime, timedelta

from airflow.sdk import Asset, AssetWatcher, dag, task

from tasks import publishing
from tasks.form import TASK_DEFAULTS, config_param, default_config, optional
from tasks.settings import model_name
from tasks.watch import ChampionTrigger

DOC = """
### The champion, where others read it

Starts within seconds of `champion` moving in MLflow, by the review, by `dssm promote`, or by hand: a move by hand is written to the history
(`dssm history`) first. Then users' and items' vectors go to $DSSM_PUBLISH: a folder of Parquet files, or `redis://HOST:PORT/DATABASE`.
Readers see all of a version or nothing of it.
"""

CHAMPION = Asset(
    name="champion",
    uri="dssm://champion",
    watchers=[
        AssetWatcher(name="champion_alias", trigger=ChampionTrigger(model_name(default_config())))
    ],
)


@dag(
    schedule=[CHAMPION],
    start_date=datetime(2017, 1, 1),
    catchup=False,
    max_active_runs=1,
    dagrun_timeout=timedelta(hours=2),
    params={
        "config": config_param(),
        "target": optional(
            "string",
            title="Target",
            section="Run",
            description_md="A folder, or `redis://HOST:PORT/DATABASE`. Empty: $DSSM_PUBLISH.",
        ),
    },
    doc_md=DOC,
    tags=["retrieval", "dssm", "serving"],
    default_args=TASK_DEFAULTS,
)
def dssm_publish() -> None:
    """Notice, then publish."""
    task(publishing.publish_champion)(task(publishing.notice_champion)())


dssm_publish()
