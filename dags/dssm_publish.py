"""The Dag `dssm_publish`: records and publishes each new champion, however it became champion."""

from __future__ import annotations

from datetime import datetime, timedelta

from airflow.sdk import Asset, AssetWatcher, dag, task

from tasks import publishing
from tasks.form import OPEN, TASK_DEFAULTS, between, config_param, default_config, optional
from tasks.settings import model_name
from tasks.watch import ChampionTrigger

DOC = """
### Publish the champion

Starts within seconds after the alias `champion` moves in MLflow: by the review, by `dssm promote`,
or by hand. A move by hand is first written to the history (`dssm history`). Then the embeddings of
users and items are written to $DSSM_PUBLISH: a folder of Parquet files, or
`redis://HOST:PORT/DATABASE`. With $DSSM_PUBLISH_LISTS=K, or K in the form, the K best items of
every user are written too. Readers see everything of a version or nothing of it.
"""

NO_SECRETS = "^(?!.*://.*[@?]).*$"  # no user or password before the host, no parameters

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
            section=OPEN,
            pattern=NO_SECRETS,
            description_md="A folder, or redis://HOST:PORT/DATABASE. Empty: $DSSM_PUBLISH. Airflow "
            "shows this field to everybody: put an address with a password into the variable.",
        ),
        "lists": optional(
            "integer",
            **between(1, 10_000),
            title="Lists",
            section=OPEN,
            description_md="Number of items in the list of each user. Empty: $DSSM_PUBLISH_LISTS;"
            " without it, no lists are written.",
        ),
    },
    description="Publishes the champion's embeddings when the alias moves.",
    doc_md=DOC,
    tags=["retrieval", "dssm", "serving"],
    default_args=TASK_DEFAULTS,
)
def dssm_publish() -> None:
    """Record a champion that was set by hand, then publish the champion."""
    task(publishing.publish_champion)(task(publishing.notice_champion)())


dssm_publish()
