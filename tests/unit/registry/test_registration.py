"""Registered versions: one for each content, and which aliases move."""

import numpy as np
import pandas as pd
import pytest

from dssm_core.data import drift
from dssm_core.errors import ConfigError, ServiceError
from dssm_core.registry import check
from dssm_core.registry.check import check_version
from dssm_core.registry.registration import register_model
from dssm_core.registry.versions import FetchedVersion, fetch_champion, newer_day, open_model
from dssm_core.report.to_mlflow import log_drift
from dssm_core.report.verdict import log_verdict
from dssm_core.runs.gate_report import GateReport
from dssm_core.runs.run import note_origin
from dssm_core.tracking.client import connect
from dssm_core.tracking.runs import open_mlflow_run
from tests.unit.conftest import PASSED, REJECTED, lose_answers

pytestmark = pytest.mark.usefixtures("local_mlflow")


def client(run):
    return connect(run.runs)


def test_a_version_whose_registration_was_not_answered_is_not_registered_again(
    fabricate, finish, monkeypatch
):
    import mlflow

    run = fabricate()
    finish(run, "recall_gate", info=PASSED)
    run.step("x").mkdir()
    asked = lose_answers(monkeypatch, mlflow, "register_model")
    assert register_model(run, run.step("x")).info["version"] == "1"
    assert len(client(run).search_model_versions("name = 'dssm-made'")) == len(asked) == 1


def test_a_version_that_does_not_load_in_time_is_told(fabricate, monkeypatch):
    monkeypatch.setattr(check, "TIMEOUT_S", 0.1)
    monkeypatch.setattr(check, "fetch", lambda model, version, to: FetchedVersion(version, to))
    with pytest.raises(
        ServiceError, match=r"version 1 of 'dssm-made' was not loaded within 0\.1 s"
    ):
        check_version("dssm-made", "1", fabricate().runs)


def test_registered_once_and_served_as_it_was_registered(fabricate, finish, tmp_path):
    import mlflow

    one, two = fabricate("one"), fabricate("two", "2024-01-08")
    for run in (one, two):
        finish(run, "recall_gate", info=PASSED)
        run.step("x").mkdir()
    assert fetch_champion(one, tmp_path / "none") is None
    first = register_model(one, one.step("x")).info
    assert register_model(one, one.step("x")).info == first  # the same content is the same version
    assert first["version"] == "1"
    assert register_model(two, two.step("x")).info["version"] == "2"
    name, runs = one.config.model_name, one.runs
    assert open_model(name, runs).aliases() == {"challenger": "2"}
    open_model(name, runs).point("champion", "1")
    (tmp_path / "copy").mkdir()
    found = fetch_champion(two, tmp_path / "copy")
    assert found.version == "1"
    assert (found.folder / "config.json").read_bytes() == (one.root / "config.json").read_bytes()
    model = mlflow.pyfunc.load_model(f"models:/{name}@champion")
    answer = model.predict(pd.DataFrame({"user_id": np.array([3, 1])}), params={"k": 1})
    assert answer.item_ids.tolist() == [[30], [10]]
    assert not list(runs.rglob("*.pkl"))


def test_the_version_and_its_logged_model_say_what_the_gate_said(
    fabricate, finish, tmp_path, monkeypatch
):
    monkeypatch.setenv("AIRFLOW__API__BASE_URL", "http://airflow")
    run = fabricate()
    note_origin(run, {"airflow.dag_id": "dssm_training", "airflow.run_id": "manual__1"})
    (tmp_path / "report.html").write_text("the report")
    finish(run, "recall_gate", info=PASSED)
    (tmp_path / "gate.json").write_text("{}")
    for gate in (PASSED | {"metrics": PASSED["metrics"] | {"served": {"recall@200": 0.5}}}, PASSED):
        log_verdict(run, tmp_path, GateReport.model_validate(gate))  # the second gate counts
    run.step("x").mkdir()
    info = register_model(run, run.step("x")).info
    store = open_model(run.config.model_name, run.runs)
    version = store.client.get_model_version(store.name, info["version"])
    entity = client(run).get_run(info["run_id"]).info
    page = f"experiments/{entity.experiment_id}/runs/{entity.run_id}/artifacts/report.html"
    assert version.description.startswith(
        f"**The gate passed the model** · [Report](#/{page}) · "
        "[Dag run](http://airflow/dags/dssm_training/runs/manual__1)\n\n"
        "| the same queries |"
    )
    assert store.client.get_registered_model(store.name).description.startswith("The two-tower")
    assert len(version.tags) <= 9
    (logged,) = store.client.search_logged_models(
        [client(run).get_run(info["run_id"]).info.experiment_id]
    )
    assert (logged.name, logged.tags["mlflow.note.content"]) == ("dssm-made", version.description)
    digest = run.need("split_by_time").files["test.parquet"][:32]
    measured = {
        (metric.value, metric.dataset_name, metric.dataset_digest)
        for metric in logged.metrics
        if metric.key == "headline/recall_at_200"
    }
    assert measured == {(1.0, "made-test", digest)}
    points = client(run).get_metric_history(info["run_id"], "headline/recall_at_200")
    assert [point.value for point in points] == [0.5, 1.0]  # none is doubled


def test_a_later_run_finds_what_the_champions_window_was_like(fabricate, finish, tmp_path):
    run = fabricate()
    finish(run, "recall_gate", info=PASSED)
    run.step("x").mkdir()
    version = register_model(run, run.step("x")).info["version"]
    open_model(run.config.model_name, run.runs).point("champion", version)
    (tmp_path / "before").mkdir()
    assert fetch_champion(run, tmp_path / "before").drift is None
    run.step("validate_data").mkdir()
    changes = {
        "volume": [None, 0.5],
        "features.a%b": [None, 0.25],
        "features.c": [None, 0.125],
    }  # MLflow takes no metric named a%b
    window = drift.Drift(
        ["2024-01-06", "2024-01-07"], [2, 3], [None, 0.0], changes, {"os": {"x": 1.0}}
    )
    drift.save(window, run.step("validate_data"))
    run_id = open_mlflow_run(run).run_id
    log_drift(client(run), run, run_id)
    (tmp_path / "after").mkdir()
    assert fetch_champion(run, tmp_path / "after").drift == window
    (tmp_path / "drift.json").write_text('{"of": "another version"}')
    client(run).log_artifact(run_id, str(tmp_path / "drift.json"))
    (tmp_path / "other").mkdir()
    assert fetch_champion(run, tmp_path / "other").drift is None
    points = client(run).get_metric_history(run_id, "window/drift_features")
    assert [(point.step, point.value) for point in points] == [(1, 0.25)]


def test_a_run_of_a_past_day_does_not_become_challenger(fabricate, finish):
    newer, past = fabricate("newer", "2024-01-08"), fabricate("past", "2024-01-07")
    for run in (newer, past):
        finish(run, "recall_gate", info=PASSED)
        run.step("x").mkdir()
        register_model(run, run.step("x"))
    store = open_model(newer.config.model_name, newer.runs)
    assert store.aliases() == {"challenger": "1"}
    assert store.tags("2")["dssm.test_day"] == "2024-01-07"
    assert (store.tags("1")["dssm.rows.train"], store.tags("1")["dssm.rows.test"]) == ("6", "7")


@pytest.mark.parametrize(
    ("one", "other", "newer"),
    [
        ("2024-01-08", "2024-01-07", True),
        ("2024-01-07", "2024-01-07", False),
        ("leave_one_out", "2024-01-07", False),
        ("2024-01-07", "", False),
    ],
)
def test_which_day_is_newer(one, other, newer):
    assert newer_day(one, other) is newer


def test_a_refused_run_is_not_registered(fabricate, finish, tmp_path):
    run = fabricate()
    finish(run, "recall_gate", info=REJECTED)
    with pytest.raises(ConfigError, match="did not pass its gate"):
        register_model(run, tmp_path)
