"""What the pages of the plugin share: MLflow's REST API, and their templates. They run in Airflow's
API server, which imports neither MLflow nor the steps.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from dssm_core.errors import masked
from tasks.links import public
from tasks.settings import mlflow_address, mlflow_credentials

TIMEOUT_S = 10
HEADLINE = "headline/"  # metrics, see dssm_core/report/headline.py


class NoAnswer(Exception):
    """MLflow does not answer, or there is none; the message is for people."""


def address() -> str:
    """The address of the server without secrets. Raises NoAnswer where there is none."""
    uri = masked(os.environ.get("MLFLOW_TRACKING_URI", ""))
    if not uri.startswith("http"):
        raise NoAnswer("MLFLOW_TRACKING_URI names no MLflow server")
    return uri


async def ask(path: str, method: str = "POST", **asked: Any) -> dict[str, Any]:
    """The answer to a request below /api/2.0/mlflow/. Raises NoAnswer."""
    import httpx

    uri = address()
    parameters = {"json": asked} if method == "POST" else {"params": asked}
    try:
        async with httpx.AsyncClient(
            base_url=f"{mlflow_address()}/api/2.0/mlflow/",
            timeout=TIMEOUT_S,
            **mlflow_credentials(),
        ) as client:
            answer = await client.request(method, path, **parameters)
            answer.raise_for_status()
            content: dict[str, Any] = answer.json()
            return content
    except (httpx.HTTPError, ValueError) as error:
        raise NoAnswer(
            f"MLflow at {uri} does not answer: {error or type(error).__name__}"
        ) from error


async def newest_runs(filtered: str, most: int) -> list[dict[str, Any]]:
    """The newest runs of all experiments that match MLflow's filter, newest first. `experiment` of
    a run is the name of its experiment.
    """
    experiments = await ask("experiments/search", max_results=1000)
    names = {each["experiment_id"]: each["name"] for each in experiments.get("experiments", [])}
    found = await ask(
        "runs/search",
        experiment_ids=list(names),
        filter=filtered,
        max_results=most,
        order_by=["attributes.start_time DESC"],
    )
    return [
        run | {"experiment": names[run["info"]["experiment_id"]]} for run in found.get("runs", [])
    ]


def pairs(run: dict[str, Any], part: str) -> dict[str, Any]:
    """The tags, params or metrics of a run, by key."""
    return {each["key"]: each["value"] for each in run.get("data", {}).get(part, [])}


def page_of(run: dict[str, Any]) -> str:
    """The address of a run's page for people's browsers."""
    info = run["info"]
    page = f"experiments/{info['experiment_id']}/runs/{info['run_id']}"
    return public(f"{address().rstrip('/')}/#/{page}")


def version_page(model: str, version: str) -> str:
    """The address of a version's page for people's browsers."""
    return public(f"{address().rstrip('/')}/#/models/{model}/versions/{version}")


def name_of(run: dict[str, Any]) -> str:
    """What people call a run."""
    return str(run["info"].get("run_name") or run["info"]["run_id"])


def render(template: str, **parts: Any) -> str:
    """A page as HTML; everything in `parts` is escaped. template: a file beside this one."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
    )
    return environment.get_template(template).render(**parts)
