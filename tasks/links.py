"""Buttons that Airflow's pages show on a task."""

from __future__ import annotations

import os
from typing import Any

from airflow.sdk import BaseOperatorLink


def public(url: str) -> str:
    """The address people's browsers use, where it differs from the tasks' own ($MLFLOW_PUBLIC_URL)."""
    inside, outside = os.environ.get("MLFLOW_TRACKING_URI"), os.environ.get("MLFLOW_PUBLIC_URL")
    return outside.rstrip("/") + url.removeprefix(inside.rstrip("/")) if inside and outside else url


class MlflowRunLink(BaseOperatorLink):
    """Opens the MLflow run; the task pushes its address, the one that trains before it does."""

    name = "MLflow run"
    xcom_key = "mlflow_run"
    page = ""  # below the run's own

    def address(self, run_page: str) -> str:
        """Where the button leads, for people, from the MLflow run's page."""
        return public(run_page) + self.page

    def get_link(self, operator: Any, *, ti_key: Any) -> str:
        """The address the task pushed. Airflow stores what this returns over it when the task ends,
        so it must be the same.
        """
        from airflow.sdk.execution_time.xcom import XCom

        return str(XCom.get_value(ti_key=ti_key, key=self.xcom_key) or "")


class ReportLink(MlflowRunLink):
    """Opens the run's report among its MLflow run's files."""

    name = "Report"
    xcom_key = "report"
    page = "/artifacts/report.html"


def push(run_page: str, *links: MlflowRunLink) -> None:
    """Make buttons of the running task work, now that the MLflow run has an address."""
    from airflow.sdk import get_current_context

    for link in links:
        get_current_context()["ti"].xcom_push(key=link.xcom_key, value=link.address(run_page))
