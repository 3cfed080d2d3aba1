"""The Dag `dssm_lookalike`: the users most like some seed users, or nearest to an item."""

from __future__ import annotations

from datetime import datetime, timedelta

from airflow.sdk import Param, dag, task

from tasks import lookalike
from tasks.form import OPEN, TASK_DEFAULTS, between, config_param, optional

DOC = """
### Find an audience

Give seed users (a list, a file, or both) **or** one item, such as an ad. The task writes a file
with the columns `user_id`, `score` and `rank`, best first, and returns its path (XCom of
`find_audience`). The file is `$DSSM_AUDIENCES/MODEL/RUN`; without the variable, it is written
below `audiences` in the runs folder.

For seeds, the score is the mean cosine similarity to all of them. For an item, it is the score of
the two towers. Seeds that the model does not know are left out; the log lists them. If the model
knows none of the seeds, the task fails.
"""


def form() -> dict[str, Param]:
    """The fields of the form: which model, which seeds or item, how many users."""
    start = {"section": OPEN}
    model = {"section": "Model"}
    audience = {"section": "Audience"}
    return {
        "config": config_param(),
        "seeds": optional(
            "array",
            [],
            items={"type": "string", "minLength": 1},
            title="Seed users",
            description_md="User ids, one per line.",
            **start,
        ),
        "seeds_file": optional(
            "string",
            maxLength=1000,
            title="File of seed users",
            description_md="Absolute path of a .parquet or .csv file with a column user_id, or "
            "of a text file with one id per line.",
            **start,
        ),
        "item": optional(
            "string",
            minLength=1,
            title="Item",
            description_md="Item id (such as an ad), to use instead of seeds.",
            **start,
        ),
        "version": optional(
            "string",
            pattern="^[A-Za-z0-9_-]+$",
            title="Version",
            description_md="Number or alias of a version of the config's model. "
            "Empty: the champion.",
            **model,
        ),
        "run": optional(
            "string",
            maxLength=1000,
            title="Run",
            description_md="Folder of a run below $DSSM_RUNS, to use instead of a version. "
            "Its index must be built.",
            **model,
        ),
        "top": Param(
            1000,
            type="integer",
            **between(1, 100_000_000),
            title="Users",
            description_md="Maximum number of users in the audience.",
            **audience,
        ),
        "exclude_seeds": optional(
            "boolean",
            True,
            title="Exclude the seeds",
            description_md="Do not include the seed users in the audience.",
            **audience,
        ),
        "format": Param(
            "parquet",
            type="string",
            enum=["parquet", "csv"],
            title="Format",
            description_md="Format of the audience file.",
            **audience,
        ),
    }


@dag(
    schedule=None,
    start_date=datetime(2017, 1, 1),
    catchup=False,
    dagrun_timeout=timedelta(hours=2),
    params=form(),
    description="Finds the users who are most like seed users, or nearest to an item.",
    doc_md=DOC,
    tags=["retrieval", "dssm", "serving"],
    default_args=TASK_DEFAULTS,
)
def dssm_lookalike() -> None:
    """Find the audience and write its file."""
    task(lookalike.find_audience)()


dssm_lookalike()
