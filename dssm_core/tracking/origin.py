"""Links between an MLflow run, its report and the Dag run that made it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import quote

from dssm_core.runs.run import Run, read_origin

if TYPE_CHECKING:
    from mlflow import MlflowClient

ADDRESS = "AIRFLOW__API__BASE_URL"  # Airflow's own setting: its address in people's browsers


@dataclass(frozen=True)
class DagRun:
    """The Dag run that made a run. page: its address, empty where $AIRFLOW__API__BASE_URL is not
    set.
    """

    dag_id: str
    run_id: str
    page: str


def dag_run_of(run: Run) -> DagRun | None:
    """The Dag run that made a run, None for a run of the terminal. The run holds the ids only; the
    address is that of today.
    """
    origin = read_origin(run)
    if not origin:
        return None
    dag_id = origin["airflow.dag_id"]
    run_id = origin["airflow.run_id"]
    base = os.environ.get(ADDRESS, "").rstrip("/")
    page = f"{base}/dags/{quote(dag_id)}/runs/{quote(run_id, safe='')}" if base else ""
    return DagRun(dag_id, run_id, page)


def dag_run_link(run: Run) -> str:
    """A Markdown link to the Dag run that made a run; without an address, its ids; empty for a run
    of the terminal.
    """
    dag_run = dag_run_of(run)
    if dag_run is None:
        return ""
    if not dag_run.page:
        return f"Dag run {dag_run.run_id} of {dag_run.dag_id}"
    return f"[Dag run]({dag_run.page})"


def links(run: Run, client: MlflowClient, run_id: str, files: Mapping[str, str]) -> str:
    """A Markdown line for the description of an MLflow run: links to its files, by title, relative
    to the server that shows them, and to the Dag run.
    """
    page = f"#/experiments/{client.get_run(run_id).info.experiment_id}/runs/{run_id}"
    found = [f"[{title}]({page}/artifacts/{file})" for title, file in files.items()]
    return " · ".join(filter(None, [*found, dag_run_link(run)]))
