"""The buttons on a task in Airflow's pages."""

from __future__ import annotations

import os
from typing import Any

from airflow.sdk import BaseOperatorLink

from dssm_core.errors import masked


def public(url: str) -> str:
    """The address for people's browsers: below $MLFLOW_PUBLIC_URL, if that is set, instead of
    $MLFLOW_TRACKING_URI.
    """
    inside = masked(os.environ.get("MLFLOW_TRACKING_URI", ""))  # as in the page of a run
    outside = os.environ.get("MLFLOW_PUBLIC_URL")
    return outside.rstrip("/") + url.removeprefix(inside.rstrip("/")) if inside and outside else url


class MlflowRunLink(BaseOperatorLink):
    """Opens the MLflow run. `validate_data`, `train_towers` and the tasks after them push its
    address, `train_towers` before it trains.
    """

    name = "MLflow run"
    xcom_key = "mlflow_run"
    page = ""  # path below the page of the run

    def address(self, run_page: str) -> str:
        """The address that the button opens in a browser."""
        return public(run_page) + self.page

    def get_link(self, operator: Any, *, ti_key: Any) -> str:
        """The address that the task pushed. When the task ends, Airflow overwrites the pushed value
        with this one, so both must be equal.
        """
        from airflow.sdk.execution_time.xcom import XCom

        return str(XCom.get_value(ti_key=ti_key, key=self.xcom_key) or "")


class ReportLink(MlflowRunLink):
    """Opens the report of the run among the files of its MLflow run."""

    name = "Report"
    xcom_key = "report"
    page = "/artifacts/report.html"


class DataChecksLink(MlflowRunLink):
    """Opens the page of the data checks among the files of the MLflow run."""

    name = "Data checks"
    xcom_key = "data_checks"
    page = "/artifacts/data_checks.html"


def with_links(output: Any, *links: BaseOperatorLink) -> Any:
    """Give the task of an output these buttons. Returns the output."""
    output.operator.operator_extra_links = links
    return output


def push(run_page: str, *links: MlflowRunLink) -> None:
    """Give buttons of the running task their address, below the page of its MLflow run."""
    from airflow.sdk import get_current_context

    for link in links:
        get_current_context()["ti"].xcom_push(key=link.xcom_key, value=link.address(run_page))
