"""The tab "MLflow runs" on Airflow's pages of a Dag and of a Dag run: a table of MLflow runs.

Airflow cannot frame MLflow's own pages: they forbid it, and they need the id of an experiment,
which Airflow does not know. This small web application therefore queries MLflow by the tags of the
runs. A plugin imports it, so it imports little at the top.
"""

from __future__ import annotations

import re
from typing import Any

from tasks import mlflow_api, overview
from tasks.links import ReportLink
from tasks.settings import DAG_TAG, RUN_TAG

SAFE = re.compile(
    r"[A-Za-z0-9_.~:+-]{1,250}"
)  # what Airflow lets Dags and runs be called, and no quote
TRAINING = ("dssm_training", "dssm_sweep")  # the Dags that train
MOST = 100
OVERVIEW = "/overview"
VIEWS = {"dag": "dssm/runs?dag_id={DAG_ID}", "dag_run": "dssm/runs?dag_id={DAG_ID}&run_id={RUN_ID}"}


async def app(scope: Any, receive: Any, send: Any) -> None:
    """ASGI: GET /runs?dag_id=…&run_id=… for users who may read the runs of the Dag in Airflow, and
    GET /overview for those who may read the runs of dssm_training.
    """
    from starlette.exceptions import HTTPException
    from starlette.requests import Request
    from starlette.responses import HTMLResponse, PlainTextResponse

    request = Request(scope, receive)
    dag_id, run_id = request.query_params.get("dag_id", ""), request.query_params.get("run_id", "")
    try:
        if request.url.path.endswith(OVERVIEW):
            await authorize(request, TRAINING[0])
            await HTMLResponse(overview.page(await overview.overview()))(scope, receive, send)
            return
        if not SAFE.fullmatch(dag_id) or (run_id and not SAFE.fullmatch(run_id)):
            raise HTTPException(400, "give dag_id, and run_id of one of its runs")
        await authorize(request, dag_id)
        answer = HTMLResponse(page(dag_id, run_id, **await found(dag_id, run_id)))
    except HTTPException as error:
        answer = PlainTextResponse(str(error.detail), error.status_code)
    await answer(scope, receive, send)


async def authorize(request: Any, dag_id: str) -> None:
    """Raise HTTPException unless the user of the request may read the runs of a Dag.

    Airflow checks permissions on its own pages only, not on those of a plugin.
    """
    from airflow.api_fastapi.app import get_auth_manager
    from airflow.api_fastapi.auth.managers.models.resource_details import (
        DagAccessEntity,
        DagDetails,
    )
    from airflow.api_fastapi.core_api.security import bearer_scheme, get_user
    from starlette.exceptions import HTTPException

    user = await get_user(request, None, await bearer_scheme(request))
    details = DagDetails(id=dag_id)
    if not get_auth_manager().is_authorized_dag(
        method="GET", access_entity=DagAccessEntity.RUN, details=details, user=user
    ):
        raise HTTPException(403, f"you may not read the runs of {dag_id}")


def wanted(dag_id: str, run_id: str) -> str:
    """The MLflow filter for the runs of a Dag, or of one Dag run."""
    of_run = f" AND tags.`{RUN_TAG}` = '{run_id}'" if run_id else ""
    return f"tags.`{DAG_TAG}` = '{dag_id}'{of_run}"


async def found(dag_id: str, run_id: str) -> dict[str, Any]:
    """The newest MLflow runs of a Dag as rows, newest first; and the problem, if there is one."""
    try:
        runs = await mlflow_api.newest_runs(wanted(dag_id, run_id), MOST)
        return {"rows": [row(each) for each in runs], "problem": ""}
    except mlflow_api.NoAnswer as error:
        return {"rows": [], "problem": str(error)}


def row(run: dict[str, Any]) -> dict[str, Any]:
    """The cells of an MLflow run, from its JSON in the format of the REST API."""
    from datetime import UTC, datetime

    info = run["info"]
    tags, params, metrics = (mlflow_api.pairs(run, part) for part in ("tags", "params", "metrics"))
    k = params.get("gate.k", "200")
    recall = f"{mlflow_api.HEADLINE}recall_at_{k}"
    address = mlflow_api.page_of(run)
    return {
        "name": mlflow_api.name_of(run),
        "page": address,
        "report": address + ReportLink.page if "gate" in tags else "",
        "started": datetime.fromtimestamp(int(info["start_time"]) / 1000, UTC).strftime(
            "%Y-%m-%d %H:%M"
        ),
        "status": info["status"].lower(),
        "day": tags.get("dssm.test_day", ""),
        "gate": tags.get("gate", ""),
        "why": tags.get("error") or tags.get("gate.reasons", ""),
        "recall": [_number(metrics.get(f"{recall}{of}")) for of in ("", "_champion")],
        "gain": _gain(metrics),
        "k": k,
        "version": tags.get("dssm.version", ""),
    }


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def _gain(metrics: dict[str, float]) -> str:
    """What is served minus the champion on the same queries, with its paired interval."""
    names = [f"{mlflow_api.HEADLINE}gain_over_champion{of}" for of in ("", "_low", "_high")]
    if not all(name in metrics for name in names):
        return ""
    mean, low, high = (metrics[name] for name in names)
    return f"{mean:+.3f} ({low:+.3f} to {high:+.3f})"


def page(dag_id: str, run_id: str, rows: list[dict[str, Any]], problem: str) -> str:
    """The page as HTML; everything in it is escaped."""
    return mlflow_api.render(
        "runs_page.html",
        dag_id=dag_id,
        run_id=run_id,
        rows=rows,
        problem=problem,
        most=MOST,
        training=TRAINING,
    )
