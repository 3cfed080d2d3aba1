"""The view "MLflow runs": who may see it, what it asks MLflow, what it shows; and that the plugin
offers it lightly.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys

import httpx
import pytest

from tasks import mlflow_api, runs_page
from tests.conftest import REPO

RUN = {
    "info": {
        "run_id": "abc",
        "run_name": "<b>one</b>",
        "experiment_id": "7",
        "start_time": 1709251200000,
        "status": "FINISHED",
    },
    "data": {
        "tags": [
            {"key": "gate", "value": "failed"},
            {"key": "gate.reasons", "value": "too low"},
            {"key": "dssm.test_day", "value": "2024-03-07"},
        ],
        "params": [{"key": "gate.k", "value": "50"}],
        "metrics": [
            {"key": "headline/recall_at_50", "value": 0.25},
            {"key": "headline/recall_at_50_champion", "value": 0.375},
            {"key": "headline/gain_over_champion", "value": -0.125},
            {"key": "headline/gain_over_champion_low", "value": -0.25},
            {"key": "headline/gain_over_champion_high", "value": 0.0},
            {"key": "headline/recall_at_200", "value": 0.75},
        ],
    },
}


def get(**params):
    """The application's answer."""

    async def ask():
        async with httpx.AsyncClient(
            transport=httpx.ASGITransport(app=runs_page.app), base_url="http://airflow"
        ) as client:
            return await client.get("/runs", params=params)

    return asyncio.run(ask())


@pytest.fixture
def mlflow(monkeypatch):
    """An MLflow that has one run; what it was asked."""
    asked = []

    async def answer(path, method="POST", **question):
        asked.append((mlflow_api.mlflow_address(), path, question))
        return (
            {"experiments": [{"experiment_id": "7", "name": "demo"}]}
            if path.startswith("experiments")
            else {"runs": [RUN]}
        )

    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://mlflow:5000/")
    monkeypatch.setenv("MLFLOW_PUBLIC_URL", "https://people.example/ml")
    monkeypatch.setattr(mlflow_api, "ask", answer)
    return asked


@pytest.fixture
def allowed(monkeypatch):
    async def nobody_is_refused(request, dag_id):
        pass

    monkeypatch.setattr(runs_page, "authorize", nobody_is_refused)


def test_the_runs_of_a_dag_run_are_shown(mlflow, allowed):
    answer = get(dag_id="dssm_training", run_id="manual__2024-03-07T00:00:00+00:00")
    assert answer.status_code == 200
    assert mlflow[0][:2] == ("http://mlflow:5000", "experiments/search")
    assert mlflow[1][2]["experiment_ids"] == ["7"]
    assert (
        mlflow[1][2]["filter"] == "tags.`airflow.dag_id` = 'dssm_training'"
        " AND tags.`airflow.run_id` = 'manual__2024-03-07T00:00:00+00:00'"
    )
    page = answer.text
    assert "&lt;b&gt;one&lt;/b&gt;" in page
    assert 'href="https://people.example/ml/#/experiments/7/runs/abc"' in page
    assert 'href="https://people.example/ml/#/experiments/7/runs/abc/artifacts/report.html"' in page
    for text in ("2024-03-01 00:00", "2024-03-07", "did not pass", "recall@50", "0.250", "too low"):
        assert text in page
    assert "0.750" not in page
    assert "<td>0.375</td><td>-0.125 (-0.250 to +0.000)</td>" in page


def test_all_runs_of_a_dag_need_no_run(mlflow, allowed):
    get(dag_id="dssm_training")
    assert mlflow[1][2]["filter"] == "tags.`airflow.dag_id` = 'dssm_training'"


@pytest.mark.parametrize("params", [{}, {"dag_id": "a' OR 1"}, {"dag_id": "a", "run_id": "`x`"}])
def test_names_that_airflow_does_not_know_ask_nothing(mlflow, allowed, params):
    assert get(**params).status_code == 400
    assert mlflow == []


def test_an_mlflow_that_is_away_is_said(monkeypatch, allowed):
    async def away(*_, **__):
        raise httpx.ConnectError("refused")

    monkeypatch.setattr(httpx.AsyncHTTPTransport, "handle_async_request", away)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://mlflow:5000")
    assert "MLflow at http://mlflow:5000 does not answer: refused" in get(dag_id="a").text
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    assert "names no MLflow server" in get(dag_id="a").text


def test_without_airflows_login_nothing_is_shown(mlflow):
    answer = get(dag_id="a")
    assert (answer.status_code, mlflow) == (401, [])


@pytest.mark.parametrize(("may", "status"), [(True, 200), (False, 403)])
def test_airflow_decides_who_may_read_a_dags_runs(mlflow, monkeypatch, may, status):
    from airflow.api_fastapi import app
    from airflow.api_fastapi.core_api import security

    class Manager:
        def is_authorized_dag(self, *, method, access_entity, details, user):
            assert (method, access_entity.name, details.id, user) == ("GET", "RUN", "a", "ann")
            return may

    async def ann(request, _, bearer):
        return "ann"

    monkeypatch.setattr(security, "get_user", ann)
    monkeypatch.setattr(app, "get_auth_manager", Manager)
    assert get(dag_id="a").status_code == status


PLUGINS = """
import json, sys
from airflow import plugins_manager
views = plugins_manager._get_ui_plugins()[0]
apps = plugins_manager.get_fastapi_plugins()[0]
modules = sorted({name.partition(".")[0] for name in sys.modules})
prefixes = [app["url_prefix"] for app in apps]
print(json.dumps({"views": views, "apps": prefixes, "modules": modules}))
"""


def load_plugins(home, **env):
    settings = {
        "AIRFLOW_HOME": str(home),
        "PYTHONPATH": str(REPO),
        "AIRFLOW__CORE__PLUGINS_FOLDER": str(REPO / "plugins"),
    }
    clean = {name: value for name, value in os.environ.items() if not name.startswith("MLFLOW_")}
    done = subprocess.run(
        [sys.executable, "-c", PLUGINS],
        env=clean | settings | env,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


def test_airflow_finds_the_view_and_imports_nothing_heavy_for_it(tmp_path):
    found = load_plugins(tmp_path, MLFLOW_TRACKING_URI="http://mlflow:5000")
    assert {(view["destination"], view["name"], view["href"]) for view in found["views"]} == {
        ("nav", "Retrieval", "dssm/overview"),
        ("dag", "MLflow runs", "dssm/runs?dag_id={DAG_ID}"),
        ("dag_run", "MLflow runs", "dssm/runs?dag_id={DAG_ID}&run_id={RUN_ID}"),
    }
    assert len({view["url_route"] for view in found["views"]}) == 3
    assert found["apps"] == ["/dssm"]
    assert not {"torch", "pandas", "mlflow", "great_expectations", "duckdb", "faiss"} & set(
        found["modules"]
    )


def test_without_an_mlflow_server_there_is_no_view(tmp_path):
    found = load_plugins(tmp_path)
    assert (found["views"], found["apps"]) == ([], [])
