"""The Dag `dssm_sweep`: tries combinations of settings, then trains the best one on all days."""

from __future__ import annotations

from datetime import datetime, timedelta

from airflow.providers.standard.operators.trigger_dagrun import TriggerDagRunOperator
from airflow.sdk import Param, TriggerRule, dag, task, task_group

from dssm_core.tuning.proposals import MOST_TRIALS, SEARCHES
from tasks import steps, sweep
from tasks.form import OPEN, TASK_DEFAULTS, between, training_form, training_task
from tasks.links import MlflowRunLink, ReportLink, with_links

DOC = """
### Find the best settings

A trial is one combination of the axes. It is trained without the last training days, and its served
index is judged on these days, never on the test day. With the search `grid`, every combination is
tried. With `optuna`, the given number of trials is run in rounds that learn from earlier rounds.
The log is read, validated and split once for all trials. A trial that fails does not stop the
others. The best combination starts `dssm_training`, which trains on all days, judges the model on
the test day and registers it.

The sweep's MLflow run holds the comparison. Its child runs are the trials: select them in MLflow
and press **Compare**.
"""

AXES = Param(
    ["loss=sampled_softmax,bce", "sampler=active,popularity"],
    type="array",
    items={"type": "string", "pattern": r"^[a-z_0-9.]+=.+"},
    title="Axes",
    section=OPEN,
    description_md="One key=value,value per line: tower, loss, sampler, index, or any setting, such"
    " as train.learning_rate=0.001,0.003. The search optuna also accepts a range, such as"
    " train.learning_rate=0.0005..0.01 log.",
)
SEARCH = Param(
    "grid",
    type="string",
    enum=list(SEARCHES),
    title="Search",
    section=OPEN,
    values_display={
        "grid": "grid: every combination",
        "optuna": "optuna: the given number of trials, chosen by earlier ones",
    },
    description_md="A search by optuna has several rounds; each round is a run of this Dag.",
)
TRIALS = Param(
    12,
    type="integer",
    **between(1, MOST_TRIALS),
    title="Trials",
    section=OPEN,
    description_md="Number of trials of a search by optuna.",
)
# Airflow's pages show it instead of the number of a trial.
LABEL = "{{ ti.xcom_pull('plan_trials')['trials'][ti.map_index]['label'] }}"


@task_group(default_args={"map_index_template": LABEL})
def trial(planned: dict[str, str]) -> None:
    """The steps of a trial, as in dssm_training. Steps that all trials share are reused."""
    mlflow = MlflowRunLink()
    run = task(sweep.begin_trial)(planned)
    run = task(steps.sample_negatives)(run)
    run = with_links(task(steps.train_towers, **training_task())(run), mlflow)
    run = with_links(task(steps.log_to_mlflow)(run), mlflow)
    run = with_links(task(steps.export_embeddings)(run), mlflow)
    run = with_links(task(steps.build_index)(run), mlflow)
    with_links(task(sweep.judge_trial)(run), mlflow, ReportLink())


@dag(
    schedule=None,
    start_date=datetime(2017, 1, 1),
    catchup=False,
    max_active_runs=4,
    dagrun_timeout=timedelta(days=2),
    params={"axes": AXES, "search": SEARCH, "trials": TRIALS}
    | {name: param for name, param in training_form().items() if name != "landed"},
    description="Tries combinations of settings on the last training days, then trains the best.",
    doc_md=DOC,
    tags=["retrieval", "dssm", "training"],
    default_args=TASK_DEFAULTS,
)
def dssm_sweep() -> None:
    """Plan the trials, share what is equal, run all, compare them, start what follows."""
    planned = task(sweep.plan_trials)()
    trials = trial.expand(planned=task(sweep.share_data)(planned))
    compare = task(sweep.compare_trials, trigger_rule=TriggerRule.ALL_DONE)
    following = with_links(compare(planned), MlflowRunLink())
    trials >> following
    following >> TriggerDagRunOperator(
        task_id="hand_on",
        trigger_dag_id="{{ ti.xcom_pull('compare_trials')['dag'] }}",
        trigger_run_id="{{ ti.xcom_pull('compare_trials')['run_id'] }}",
        conf="{{ ti.xcom_pull('compare_trials')['conf'] | tojson }}",
        skip_when_already_exists=True,
    )


dssm_sweep()
