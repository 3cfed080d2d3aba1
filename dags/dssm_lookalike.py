"""The Dag `dssm_lookalike`: from seed users or an item to the users most like them, with scores."""

from __future__ import annotations

from datetime import datetime, timedelta

from airflow.sdk import Param, dag, task

from tasks import lookalike
from tasks.form import TASK_DEFAULTS, config_param, optional

DOC = """
### An audience

Give seed users (a list, a file, or both) **or** one item, such as an ad. The task's return value (`find_audience`, XCom) names the file of
`user_id`, `score` and `rank`, best first; it lies below $DSSM_AUDIENCES, `audiences` in the runs' folder unless said, as MODEL/RUN.

Of seeds the score is the mean cosine with all of them, of an item it is the towers' own. Seeds that the model does not know are counted,
named in the log and left out; where none is known, the task fails and says so.
"""


def form() -> dict[str, Param]:
    """Which model, from whom, how many."""
    model, start, audience = (
        {"section": "Model"},
        {"section": "Start from"},
        {"section": "Audience"},
    )
    return {
        "config": config_param(),
        "version": optional(
            "string",
            pattern="^[A-Za-z0-9_-]+$",
            title="Version",
            description_md="A version's number or an alias of the config's model. Empty: the champion.",
            **model,
        ),
        "run": optional(
            "string",
            maxLength=1000,
            title="Run",
            description_md="The folder of a run below $DSSM_RUNS, instead of a registered version; its index must be built.",
            **model,
        ),
        "seeds": Param(
            [],
            type="array",
            items={"type": "string", "minLength": 1},
            title="Seed users",
            description_md="User ids, one a line.",
            **start,
        ),
        "seeds_file": optional(
            "string",
            maxLength=1000,
            title="File of seed users",
            description_md="Absolute path of a .parquet or .csv with a column `user_id`, or of a text file with one id a line.",
            **start,
        ),
        "item": optional(
            "string",
            minLength=1,
            title="Item",
            description_md="An item id (an ad), instead of seeds.",
            **start,
        ),
        "top": Param(
            1000,
            type="integer",
            minimum=1,
            maximum=100_000_000,
            title="Users",
            description_md="How many users at most.",
            **audience,
        ),
        "exclude_seeds": Param(
            True,
            type="boolean",
            title="Leave the seeds out",
            description_md="Seeds are not of their own audience.",
            **audience,
        ),
        "format": Param(
            "parquet",
            type="string",
            enum=["parquet", "csv"],
            title="Format",
            description_md="Of the audience's file.",
            **audience,
        ),
    }


@dag(
    schedule=None,
    start_date=datetime(2017, 1, 1),
    catchup=False,
    dagrun_timeout=timedelta(hours=2),
    params=form(),
    doc_md=DOC,
    tags=["retrieval", "dssm", "serving"],
    default_args=TASK_DEFAULTS,
)
def dssm_lookalike() -> None:
    """One task."""
    task(lookalike.find_audience)()


dssm_lookalike()
