"""The Dag `dssm_sweep`: settings against each other on the last train days; the best one is
trained, judged and registered.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from airflow.providers.standard.operators.trigger_dagrun import TriggerDagRunOperator
from airflow.sdk import Param, TriggerRule, dag, task, task_group

from dssm_core.tuning.proposals import MOST_TRIALS, SEARCHES
from tasks import steps, sweep
from tasks.form import TASK_DEFAULTS, optional, training_form
from tasks.links import MlflowRunLink

DOC = """
### Which settings are best?

Every combination of the axes is a trial: trained on all but the last train days and judged by its served index on those, never on the
test day. With search `optuna` so many trials as you say, in rounds that learn from those before. Reading, checking and splitting the
log is done once. A trial that fails does not stop the others. The best goes to `dssm_training`: trained on all days, judged on the test
day, registered.

The sweep's MLflow run holds the comparison, its child runs the trials: select them there and press **Compare**.
"""

AXES = Param(
    ["loss=sampled_softmax,bce", "sampler=active,popularity"],
    type="array",
    items={"type": "string", "pattern": r"^[a-z_0-9.]+=.+"},
    title="Axes",
    section="Sweep",
    description_md="One a line, `key=value,value`: `tower`, `loss`, `sampler`, `index`, or a setting as `train.learning_rate=0.001,0.003`. "
    "A search also takes `train.learning_rate=0.0005..0.01 log`.",
)
SEARCH = Param(
    "grid",
    type="string",
    enum=list(SEARCHES),
    title="Search",
    section="Sweep",
    description_md="`grid`: every combination. `optuna`: so many trials, in rounds; each round is another run of this Dag.",
)
TRIALS = Param(
    12,
    type="integer",
    minimum=1,
    maximum=MOST_TRIALS,
    title="Trials",
    section="Sweep",
    description_md="Of a search.",
)
BETWEEN_ROUNDS = {  # what a round tells the next
    "sweep": optional(
        "string",
        title="Sweep",
        section="Between rounds",
        description_md="Filled in by the Dag itself.",
    ),
    "tried": Param(
        [],
        type="array",
        items={"type": "object"},
        title="Tried",
        section="Between rounds",
        description_md="As above.",
    ),
}

LABEL = "{{ ti.xcom_pull('plan_trials')['trials'][ti.map_index]['label'] }}"  # what Airflow's pages show instead of a number


@task_group(default_args={"map_index_template": LABEL})
def trial(given: dict[str, str]) -> None:
    """A trial's own steps, as in dssm_training; the shared ones are taken over."""
    run = task(sweep.begin_trial)(given)
    run = task(steps.sample_negatives)(run)
    run = task(steps.train_towers, pool="gpu", execution_timeout=timedelta(hours=6))(run)
    run.operator.operator_extra_links = (MlflowRunLink(),)
    run = task(steps.log_to_mlflow)(run)
    run = task(steps.export_embeddings)(run)
    run = task(steps.build_index)(run)
    task(sweep.judge_trial)(run)


@dag(
    schedule=None,
    start_date=datetime(2017, 1, 1),
    catchup=False,
    max_active_runs=4,
    dagrun_timeout=timedelta(days=2),
    params={"axes": AXES, "search": SEARCH, "trials": TRIALS}
    | {name: param for name, param in training_form().items() if name != "landed"}
    | BETWEEN_ROUNDS,
    doc_md=DOC,
    tags=["retrieval", "dssm", "training"],
    default_args=TASK_DEFAULTS,
)
def dssm_sweep() -> None:
    """Plan, share, try all, compare, hand on."""
    planned = task(sweep.plan_trials)()
    tried = trial.expand(given=task(sweep.share_data)(planned))
    following = task(sweep.compare_trials, trigger_rule=TriggerRule.ALL_DONE)(planned)
    tried >> following
    following >> TriggerDagRunOperator(
        task_id="hand_on",
        trigger_dag_id="{{ ti.xcom_pull('compare_trials')['dag'] }}",
        trigger_run_id="{{ ti.xcom_pull('compare_trials')['run_id'] }}",
        conf="{{ ti.xcom_pull('compare_trials')['conf'] | tojson }}",
        skip_when_already_exists=True,
    )


dssm_sweep()
