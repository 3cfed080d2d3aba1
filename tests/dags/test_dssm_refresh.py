"""The Dag dssm_refresh: when it runs, what it asks for, and as of when."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from types import SimpleNamespace

import pytest

from tests.conftest import REPO

PARSE = """
import json
from airflow.dag_processing.dagbag import DagBag
bag = DagBag("dags/dssm_refresh.py")
dag = bag.dags["dssm_refresh"]
print(json.dumps({
    "errors": bag.import_errors, "schedule": dag.schedule, "catchup": dag.catchup,
    "runs": dag.max_active_runs,
    "params": {name: dag.params.get_param(name).schema for name in dag.params},
    "tasks": {
        t.task_id: [t.pool, t.retries, len(t.retry_policy.rules), bool(t.doc_md)]
        for t in dag.tasks
    },
}))
"""


def parse(tmp_path, **env):
    settings = {
        "AIRFLOW_HOME": str(tmp_path),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "false",
        "PYTHONPATH": str(REPO),
    }
    own = {name: value for name, value in os.environ.items() if not name.startswith("DSSM_")}
    done = subprocess.run(
        [sys.executable, "-c", PARSE],
        cwd=REPO,
        env=own | settings | env,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize(
    ("env", "schedule"),
    [
        ({}, None),
        ({"DSSM_SCHEDULE": "30 3 * * *"}, "@hourly"),
        ({"DSSM_SCHEDULE": "30 3 * * *", "DSSM_REFRESH_SCHEDULE": "*/30 * * * *"}, "*/30 * * * *"),
    ],
    ids=["by hand", "hourly", "as said"],
)
def test_it_runs_every_hour_where_days_land_by_a_schedule(env, schedule, tmp_path):
    parsed = parse(tmp_path, **env)
    assert parsed["errors"] == {}
    assert parsed["schedule"] == schedule
    assert (parsed["catchup"], parsed["runs"]) == (False, 1)
    assert parsed["tasks"] == {"refresh_champion": ["default_pool", 2, 1, True]}
    assert all(
        schema["title"] and schema["section"] and schema["description_md"]
        for schema in parsed["params"].values()
    )


@pytest.mark.parametrize(
    ("given", "interval", "wanted"),
    [
        ("2024-03-04T11:00:00Z", None, 1_709_550_000_000),
        ("2024-03-04T11:00:00", None, 1_709_550_000_000),
        ("2024-03-04T12:00:00+01:00", None, 1_709_550_000_000),
        (None, "2024-03-04T10:00:00+00:00", 1_709_546_400_000),
        (None, None, 1_709_542_800_000),
    ],
)
def test_the_moment_is_the_forms_else_the_intervals_end_else_the_runs(
    given, interval, wanted, monkeypatch, tmp_path, outcomes
):
    from datetime import datetime

    import airflow.sdk

    from dssm_core.operation import refresh
    from dssm_core.registry import versions
    from tasks import refreshing

    end, after = (
        interval and datetime.fromisoformat(interval),
        datetime.fromisoformat("2024-03-04T09:00:00+00:00"),
    )
    run = SimpleNamespace(data_interval_end=end, run_after=after)
    params, asked = {"config": "demo", "data": None, "as_of": given}, []
    monkeypatch.setattr(
        airflow.sdk, "get_current_context", lambda: {"params": params, "dag_run": run}
    )
    monkeypatch.setattr(
        versions,
        "open_model",
        lambda name, runs: SimpleNamespace(name=name, aliases=lambda: {"champion": "3"}),
    )
    made = {"version": "3", "as_of": "2024-03-04T11:00Z"} | {
        "read_from": [{"files": {"a.csv": "1", "b.csv": "2"}}, {"days": {"2024-03-01": "k"}}]
    }
    monkeypatch.setattr(
        refresh, "refresh_registered", lambda *arguments: asked.append(arguments) or made
    )
    monkeypatch.setenv("DSSM_RUNS", str(tmp_path / "runs"))
    files, days = refreshing.refresh_champion()["read_from"]
    assert files["files"] == 2  # XCom holds no list of files
    assert days == {"days": {"2024-03-01": "k"}}
    assert outcomes == ["refreshed dssm-demo v3 as of 2024-03-04T11:00Z"]
    store, version, config, as_of_ms, root, landed = asked[0]
    assert (store.name, version, config.name, as_of_ms) == ("dssm-demo", None, "demo", wanted)
    assert (root, landed) == (tmp_path / "refreshed", tmp_path / "days")


def test_without_a_champion_it_is_skipped(monkeypatch, tmp_path):
    import airflow.sdk
    from airflow.sdk.exceptions import AirflowSkipException

    from dssm_core.registry import versions
    from tasks import refreshing

    params = {"config": "demo", "data": None, "as_of": None}
    monkeypatch.setattr(
        airflow.sdk, "get_current_context", lambda: {"params": params, "dag_run": SimpleNamespace()}
    )
    monkeypatch.setattr(
        versions, "open_model", lambda name, runs: SimpleNamespace(name=name, aliases=dict)
    )
    with pytest.raises(AirflowSkipException, match="dssm-demo has no champion"):
        refreshing.refresh_champion()
