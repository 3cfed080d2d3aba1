"""The steps of the pipeline as Airflow tasks. Each takes the path of the run and returns it.

Heavy modules are imported inside the functions: Airflow forks its workers, and it parses the Dag
files every few seconds.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from tasks.connections import provide_connection
from tasks.outcomes import tell
from tasks.settings import make_run

if TYPE_CHECKING:
    from dssm_core.operation.history import Action

log = logging.getLogger(__name__)

ANSWERS: dict[str, Action] = {
    "Promote": "promote",
    "Keep as challenger": "keep",
    "Reject": "reject",
}


def run_step(run: str, name: str) -> str:
    """Execute one step of a run and return the path of the run. If the run has an MLflow run, its
    button works as soon as the step begins.
    """
    from airflow.sdk import get_current_context

    from dssm_core.runs import pipeline
    from dssm_core.runs.run import open_run
    from dssm_core.tracking.runs import mlflow_run_url
    from tasks.links import MlflowRunLink, push

    opened = open_run(run)
    if name == "ingest_data":
        provide_connection(opened.config)
    if page := mlflow_run_url(opened):
        push(page, MlflowRunLink())
    manifest = pipeline.run_step(opened, name)
    done = {"rows": manifest.rows, "seconds": manifest.seconds, "reused_from": manifest.reused_from}
    get_current_context()["ti"].xcom_push(key="done", value=done)
    tell(manifest.line)
    return run


def ingest_data() -> str:
    """Create the run's folder from the trigger form, and read the log into canonical tables."""
    from airflow.sdk import get_current_context

    return run_step(make_run(get_current_context()), "ingest_data")


def validate_data(run: str) -> str:
    """Check every rule and quarantine rows that break one. Fails without a retry if too many do.

    The MLflow run is opened first: it keeps the page of the checks, also if they fail.
    """
    from dssm_core.runs.run import open_run
    from dssm_core.tracking.client import connect
    from dssm_core.tracking.runs import log_data_checks, open_mlflow_run
    from tasks.links import DataChecksLink, push

    opened = open_run(run)
    page = open_mlflow_run(opened)
    push(page.url, DataChecksLink())
    run_step(run, "validate_data")
    log_data_checks(connect(opened.runs), opened, page.run_id)
    return run


def split_by_time(run: str) -> str:
    """Split the log into training days before the cutoff and test days after it."""
    return run_step(run, "split_by_time")


def sample_negatives(run: str) -> str:
    """Fit ids on the training set, and write the tables of the sampler."""
    return run_step(run, "sample_negatives")


def train_towers(run: str) -> str:
    """Train both towers. The MLflow run is opened first, so that its button works meanwhile."""
    from dssm_core.runs.run import open_run
    from dssm_core.tracking.runs import open_mlflow_run

    open_mlflow_run(open_run(run))
    return run_step(run, "train_towers")


def log_to_mlflow(run: str) -> str:
    """Log settings, curves, data and plots to MLflow."""
    return run_step(run, "log_to_mlflow")


def export_embeddings(run: str) -> str:
    """Compute the embedding of every user and item as of the cutoff."""
    return run_step(run, "export_embeddings")


def build_index(run: str) -> str:
    """Build the index that is served."""
    return run_step(run, "build_index")


def recall_gate(run: str) -> str | None:
    """Judge the served index and write the report.

    Returns None if the gate does not pass the model. Airflow then skips the next tasks; this is not
    an error.
    """
    from dssm_core.gate.rules import verdict_line
    from dssm_core.runs.gate_report import read_gate_report
    from dssm_core.runs.run import open_run
    from dssm_core.tracking.runs import mlflow_run_url
    from tasks.links import ReportLink, push

    run_step(run, "recall_gate")
    opened = open_run(run)
    push(mlflow_run_url(opened), ReportLink())
    report = read_gate_report(opened)
    for reason in report.marked:
        log.info("%s", reason)
    tell(verdict_line(report, opened.config.gate))
    return run if report.passed else None


def register_model(run: str) -> str:
    """Register towers, ids and index as one version with the alias `challenger`.

    The texts and default answers of the review are pushed as XCom `review`.
    """
    from airflow.sdk import get_current_context

    from dssm_core.operation import promotion, review
    from dssm_core.registry.versions import CHAMPION, open_model
    from dssm_core.runs.run import open_run
    from dssm_core.tracking.runs import mlflow_run_url
    from tasks.links import MlflowRunLink, ReportLink

    run_step(run, "register_model")
    opened = open_run(run)
    store = open_model(opened.config.model_name, opened.runs)
    version, champion = (
        opened.need("register_model").info["version"],
        store.aliases().get(CHAMPION, ""),
    )
    pages = {
        link.name: link.address(mlflow_run_url(opened)) for link in (ReportLink(), MlflowRunLink())
    }
    pushed = {
        "model": store.name,
        "version": version,
        "champion": champion,
        "subject": review.subject(opened, store),
        "body": review.body(opened, store, pages),
    }
    pushed["alone"] = {  # answers that need no person, and why
        "Promote": promotion.alone(opened),
        "Keep as challenger": promotion.outdated(store, version, champion) if champion else None,
    }
    get_current_context()["ti"].xcom_push(key="review", value=pushed)
    tell(f"{store.name} v{version} is challenger")
    return run


def promote(run: str, answer: dict[str, Any]) -> str:
    """Apply the answer of the review: the version becomes the champion or keeps its alias. The
    decision is written to the history in every case.
    """
    from datetime import datetime

    from airflow.sdk import get_current_context

    from dssm_core.operation import promotion
    from dssm_core.registry.check import check_version
    from dssm_core.runs.run import open_run

    opened = open_run(run)
    reviewed = get_current_context()["ti"].xcom_pull(task_ids="register_model", key="review")
    made = promotion.decide(
        ANSWERS[answer["chosen_options"][0]],
        reviewed["model"],
        opened.runs,
        datetime.fromisoformat(str(answer["responded_at"])),
        (answer.get("responded_by_user") or {}).get("name") or "unknown",
        answer["params_input"].get("reason", ""),
        reviewed["version"],
        seen=reviewed["champion"],
        check=lambda store, version: check_version(store.name, version, opened.runs),
    )
    tell(made.line)
    return run
