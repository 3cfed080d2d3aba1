"""The Dag `dssm_training`: trains, judges and registers a retrieval model from a click log."""

from __future__ import annotations

from datetime import datetime, timedelta

from airflow.sdk import (
    Param,
    PartitionedAssetTimetable,
    RollupMapper,
    TaskGroup,
    WaitForAll,
    dag,
    task,
)

from tasks import steps
from tasks.form import TASK_DEFAULTS, training_form, training_task
from tasks.links import DataChecksLink, MlflowRunLink, ReportLink, with_links
from tasks.review import Review
from tasks.windows import INTERACTIONS, WINDOW_DAYS, TrailingDaysMapper, TrailingDaysWindow

REVIEW_WAITS = timedelta(days=7)  # without an answer, the version stays challenger

DOC = """
### From a click log to a retrieval model

Reads seven days of clicks, trains a two-tower (DSSM) model on six and judges it on the last. The
index that would be served must reach a floor of recall, and must be better than simple baselines
and than the current champion. A model that passes becomes one version in MLflow with the alias
`challenger`. If the gate does not pass a model, MLflow keeps the reasons, and
`register_model` is skipped.

* **Review**: after the registration a task waits for a person, who compares challenger and champion
  and chooses Promote, Keep as challenger or Reject, with a reason. If `gate.promote_margin` is set,
  a challenger that is better than the champion by this margin is promoted without a review.
* **Trigger** ▶ opens a form. An empty field keeps the value of the config file.
* **MLflow run** on a task opens the run in MLflow, on `train_towers` with the curves during
  training. **Data checks** on `validate_data` shows what each rule found. **Report** on
  `recall_gate` opens the report of the run, which is written even if the gate does not pass the
  model.
* The tab **MLflow runs**, here and on each run's page, lists the results.
* If a worker is lost, its task is retried and continues from its last checkpoint. Wrong data or
  settings fail without a retry: the log of the task says what is wrong.
* When `ingest_interactions` has landed all days of a window, a run for its last day starts by
  itself, with the config $DSSM_CONFIG.
"""


def schedule() -> PartitionedAssetTimetable:
    """One run for each window whose days have all landed; the last day is its partition key. A run
    can also be triggered by hand.
    """
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
    # Runs that wait for a review do not stop the next day's run. The pool keeps trainings apart.
    max_active_runs=16,
    dagrun_timeout=REVIEW_WAITS + timedelta(hours=12),
    params=training_form(),
    description="From a click log to a judged and registered retrieval model, then a review.",
    doc_md=DOC,
    tags=["retrieval", "dssm", "training"],
    default_args=TASK_DEFAULTS,
)
def dssm_training() -> None:
    """The steps of dssm_core in their order, then the review. Each task passes the run on."""
    mlflow = MlflowRunLink()
    with TaskGroup("data", prefix_group_id=False, tooltip="read, check and split the log"):
        run = task(steps.ingest_data)()
        run = with_links(task(steps.validate_data)(run), mlflow, DataChecksLink())
        run = with_links(task(steps.split_by_time)(run), mlflow)
    with TaskGroup("training", prefix_group_id=False, tooltip="negatives, towers, MLflow"):
        run = with_links(task(steps.sample_negatives)(run), mlflow)
        run = with_links(task(steps.train_towers, **training_task())(run), mlflow)
        run = with_links(task(steps.log_to_mlflow)(run), mlflow)
    with TaskGroup("index", prefix_group_id=False, tooltip="vectors, the index, its recall"):
        run = with_links(task(steps.export_embeddings)(run), mlflow)
        run = with_links(task(steps.build_index)(run), mlflow)
        gate = task.short_circuit(steps.recall_gate, ignore_downstream_trigger_rules=False)
        run = with_links(gate(run), mlflow, ReportLink())
    with TaskGroup("decision", prefix_group_id=False, tooltip="register, review, promote"):
        run = with_links(task(steps.register_model)(run), mlflow)
        review = _review()
        run >> review
        task(steps.promote)(run, review.output)


def _review() -> Review:
    """The task that waits for a person."""
    return Review(
        task_id="review",
        subject="{{ ti.xcom_pull('register_model', key='review')['subject'] }}",
        body="{{ ti.xcom_pull('register_model', key='review')['body'] }}",
        options=list(steps.ANSWERS),
        defaults="Keep as challenger",
        params={"reason": Param("", type="string", title="Reason", maxLength=1000)},
        execution_timeout=None,
        response_timeout=REVIEW_WAITS,
    )


dssm_training()
