"""In Airflow's menu a link to MLflow and the page "Retrieval", and a tab "MLflow runs" on the pages
of Dags and Dag runs.
"""

import os

from airflow.plugins_manager import AirflowPlugin

from dssm_core.errors import masked
from tasks.runs_page import VIEWS, app

URL = masked(os.environ.get("MLFLOW_PUBLIC_URL") or os.environ.get("MLFLOW_TRACKING_URI") or "")


class MlflowView(AirflowPlugin):
    """A menu entry with the address of the MLflow server ($MLFLOW_PUBLIC_URL, else
    $MLFLOW_TRACKING_URI), and a tab with the runs on it.
    """

    name = "mlflow_view"
    fastapi_apps = [{"app": app, "url_prefix": "/dssm", "name": "MLflow runs"}] if URL else []
    external_views = (
        [
            {"name": "MLflow", "href": URL, "destination": "nav"},
            {
                "name": "Retrieval",
                "href": "dssm/overview",
                "destination": "nav",
                "url_route": "retrieval",
            },
            *(
                {
                    "name": "MLflow runs",
                    "href": href,
                    "destination": where,
                    "url_route": f"mlflow-runs-{where.replace('_', '-')}",
                }
                for where, href in VIEWS.items()
            ),
        ]
        if URL
        else []
    )
