"""The Dag of audiences: its form, and its task on a run made by hand."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from types import SimpleNamespace

import pandas as pd
import pytest

from dssm_core.errors import ConfigError, DataError
from tasks import lookalike, settings
from tests.conftest import REPO
from tests.unit.conftest import fabricated

PARSE = """
import json
from airflow.dag_processing.dagbag import DagBag
bag = DagBag("dags/dssm_lookalike.py")
dag = bag.dags["dssm_lookalike"]
print(json.dumps({
    "errors": bag.import_errors,
    "tasks": {t.task_id: t.retries for t in dag.tasks},
    "defaults": {name: dag.params.get_param(name).value for name in dag.params},
    "params": {name: dag.params.get_param(name).schema for name in dag.params},
}))
"""


@pytest.fixture(scope="module")
def parsed(tmp_path_factory):
    home = {
        "AIRFLOW_HOME": str(tmp_path_factory.mktemp("airflow")),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "false",
        "PYTHONPATH": str(REPO),
    }
    done = subprocess.run(
        [sys.executable, "-c", PARSE],
        cwd=REPO,
        env=os.environ | home,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


def test_it_parses_to_one_task(parsed):
    assert parsed["errors"] == {}
    assert parsed["tasks"] == {"find_audience": 2}


def test_the_form_explains_every_field(parsed):
    for schema in parsed["params"].values():
        assert schema["title"]
        assert schema["section"]
        assert schema["description_md"]


@pytest.fixture
def ask(parsed, monkeypatch, tmp_path):
    """A function: the task's answer to the form's defaults but for some fields."""
    monkeypatch.setenv("DSSM_RUNS", str(tmp_path / "runs"))
    run = fabricated(tmp_path)
    defaults = parsed["defaults"] | {"run": str(run.root.relative_to(tmp_path / "runs"))}

    def answer(**fields):
        context = {
            "params": defaults | fields,
            "dag_run": SimpleNamespace(run_id="manual__2024-01-01T00:00:00+00:00"),
        }
        monkeypatch.setattr("airflow.sdk.get_current_context", lambda: context)
        return lookalike.find_audience()

    return answer


def test_seeds_of_the_form_and_of_a_file_go_together(ask, tmp_path):
    (tmp_path / "seeds.txt").write_text("2\n77\n")
    told = ask(seeds=["1"], seeds_file=str(tmp_path / "seeds.txt"))
    json.dumps(told)
    assert {key: told[key] for key in ("run", "users", "seeds", "unknown_seeds", "unknown")} == {
        "run": "one",
        "users": 1,
        "seeds": 2,
        "unknown_seeds": 1,
        "unknown": ["77"],
    }
    assert told["file"] == str(
        tmp_path / "runs" / "audiences" / "dssm-made" / "manual__2024-01-01T00-00-00-00-00.parquet"
    )
    assert pd.read_parquet(told["file"])["user_id"].tolist() == [3]


def test_every_field_has_an_effect(ask):
    assert pd.read_parquet(ask(item="10")["file"])["user_id"].tolist() == [1, 2, 3]
    assert pd.read_parquet(ask(item="10", top=1)["file"])["user_id"].tolist() == [1]
    assert pd.read_csv(ask(item="10", format="csv")["file"])["user_id"].tolist() == [1, 2, 3]
    assert pd.read_parquet(ask(seeds=["1"])["file"])["user_id"].tolist() == [2, 3]
    assert pd.read_parquet(ask(seeds=["1"], exclude_seeds=False)["file"])["user_id"].tolist() == [
        1,
        2,
        3,
    ]
    with pytest.raises(ConfigError, match="version '1' is of a registered model"):
        ask(item="10", version="1")
    with pytest.raises(ConfigError, match="neither"):
        ask()
    with pytest.raises(DataError, match="1 of 1 seeds are no users"):
        ask(seeds=["99"])
    with pytest.raises(ConfigError, match=r"run '\.\./elsewhere' is outside"):
        ask(item="10", run="../elsewhere")
    with pytest.raises(ConfigError, match=r"run 'made/nowhere' is not in .*`dssm runs` lists"):
        ask(item="10", run="made/nowhere")


def test_without_a_run_the_config_s_model_is_asked(ask, monkeypatch):
    asked = []
    monkeypatch.setattr(
        "dssm_core.registry.versions.open_model",
        lambda name, runs: asked.append((name, runs)) or SimpleNamespace(name=name),
    )
    monkeypatch.setattr(
        "dssm_core.operation.opened.opened",
        lambda of, version: asked.append((of.name, version)) or _stop(),
    )
    with pytest.raises(InterruptedError):
        ask(run=None, config="demo", version="challenger", item="10")
    assert asked == [("dssm-demo", settings.runs_folder()), ("dssm-demo", "challenger")]


def _stop():
    raise InterruptedError
