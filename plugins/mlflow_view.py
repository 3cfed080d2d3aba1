"""MLflow in Airflow's menu."""

import os

from airflow.plugins_manager import AirflowPlugin


class MlflowView(AirflowPlugin):
    """A menu entry that leads to the MLflow server people use ($MLFLOW_PUBLIC_URL, else the tasks' own)."""

    name = "mlflow_view"
    external_views = (
        [{"name": "MLflow", "href": url, "destination": "nav"}]
        if (url := os.environ.get("MLFLOW_PUBLIC_URL") or os.environ.get("MLFLOW_TRACKING_URI"))
        else []
    )
