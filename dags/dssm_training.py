"""The Dag `dssm_training`: a day's click log becomes a registered retrieval model, or a reason why
not.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from airflow.sdk import Param, PartitionedAssetTimetable, RollupMapper, WaitForAll, dag, task

from tasks import steps
from tasks.form import TASK_DEFAULTS, training_form
from tasks.links import MlflowRunLink, ReportLink
from tasks.review import Review
from tasks.windows import INTERACTIONS, WINDOW_DAYS, TrailingDaysMapper, TrailingDaysWindow

REVIEW_WAITS = timedelta(days=7)  # without an answer by then the version stays challenger

DOC = """
### From a click log to a served retrieval model

Reads seven days of clicks, trains a two-tower (DSSM) model on six and judges it on the last: the index that would be
served must recall well enough against a floor, simple baselines and today's champion. What passes becomes one version
in MLflow, alias `challenger`; what does not stays in MLflow with the reasons, and `register_model` is skipped.

* After registration a **review** waits for a person: challenger beside champion; Promote, Keep as challenger or Reject, with a reason.
  With `gate.promote_margin` set, one that is so far ahead of the champion is promoted without.
* **Trigger** ▶ opens a form. Empty fields keep what the config file says.
* **MLflow run** on `train_towers` opens the curves while it trains; **Report** on `recall_gate` tells the whole run, also a refused one.
* The tab **MLflow runs**, here and on each run's page, lists what came out.
* A lost worker is retried and goes on from its last checkpoint. Bad data or settings fail at once: read the task's log.
* When `ingest_interactions` has landed the days of a window, a run for its last day starts by itself, on $DSSM_CONFIG.
"""


def schedule() -> PartitionedAssetTimetable:
    """A window whose days have all landed, once; its last day is the partition key. Or by hand."""
    mapper = RollupMapper(
        upstream_mapper=TrailingDaysMapper(WINDOW_DAYS),
        window=TrailingDaysWindow(WINDOW_DAYS),
        wait_policy=WaitForAll(),
    )
    return PartitionedAssetTimetable(assets=INTERACTIONS, default_partition_mapper=mapper)


@dag(
    schedule=schedule(),
    start_date=datetime(2017, 1, 1),
    catchup=False,
    max_active_runs=16,  # while a review waits the next day trains; the pool keeps trainings one at a time
    dagrun_timeout=REVIEW_WAITS + timedelta(hours=12),
    params=training_form(),
    doc_md=DOC,
    tags=["retrieval", "dssm", "training"],
    default_args=TASK_DEFAULTS,
)
def dssm_training() -> None:
    """Each step takes the run and hands it on: the graph is dssm_core's pipeline."""
    run = task(steps.ingest_data)()
    run = task(steps.validate_data)(run)
    run = task(steps.split_by_time)(run)
    run = task(steps.sample_negatives)(run)
    run = task(steps.train_towers, pool="gpu", execution_timeout=timedelta(hours=6))(run)
    run.operator.operator_extra_links = (MlflowRunLink(),)
    run = task(steps.log_to_mlflow)(run)
    run = task(steps.export_embeddings)(run)
    run = task(steps.build_index)(run)
    run = task.short_circuit(steps.recall_gate, ignore_downstream_trigger_rules=False)(run)
    run.operator.operator_extra_links = (MlflowRunLink(), ReportLink())
    run = task(steps.register_model)(run)
    review = Review(
        task_id="review",
        subject="Promote {{ ti.xcom_pull('register_model', key='review')['model'] }}?",
        body="{{ ti.xcom_pull('register_model', key='review')['body'] }}",
        options=list(steps.ANSWERS),
        defaults="Keep as challenger",
        params={"reason": Param("", type="string", title="Reason", maxLength=1000)},
        execution_timeout=None,
        response_timeout=REVIEW_WAITS,
    )
    run >> review
    task(steps.promote)(run, review.output)


dssm_training()
