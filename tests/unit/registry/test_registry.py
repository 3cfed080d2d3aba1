"""MLflow on a SQLite file in a temporary folder: what is found again, what is written once, which
alias moves.
"""

import json
import logging
import os
import shutil

import numpy as np
import pandas as pd
import pytest
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from dssm_core.data import drift
from dssm_core.errors import ConfigError, ServiceError
from dssm_core.registry import versions as registry
from dssm_core.runs.run import note_origin

SERVED = {"recall@200": 1.0}
PASSED = {"passed": True, "reasons": ["good"], "metrics": {"served": SERVED}}
REFUSED = {
    "passed": False,
    "reasons": ["bad"],
    "metrics": {"served": {"recall@200": 0.1, "window_h": None}, "by_part": [0.5, None]},
}


@pytest.fixture(scope="module")
def database(tmp_path_factory):
    """An empty MLflow database: making one takes seconds, copying it none."""
    runs = tmp_path_factory.mktemp("template")
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        registry.connect(runs)
    return runs / "mlflow.db"


@pytest.fixture(autouse=True)
def local(monkeypatch, database, tmp_path):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    (tmp_path / "runs").mkdir()
    shutil.copyfile(database, tmp_path / "runs" / "mlflow.db")


def client(run):
    return registry.connect(run.root.parents[2])


def test_flatten_and_names_by_hand():
    assert registry.flatten({"a": {"b": 1, "c": {"d": 2}}, "e": [3]}) == {
        "a.b": 1,
        "a.c.d": 2,
        "e": [3],
    }
    assert registry.metric_name("served.recall@200") == "served/recall_at_200"


def test_a_server_that_is_down_is_named_at_once(fabricate, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    with pytest.raises(
        ServiceError, match=r"MLflow at http://127\.0\.0\.1:9 .* run the step again"
    ):
        registry.open_tracking(fabricate())


def test_speaking_to_one_server_leaves_no_trace_for_the_next(tmp_path):
    with registry.globally(f"sqlite:///{tmp_path}/other.db"):
        assert registry.os.environ["MLFLOW_TRACKING_URI"] == f"sqlite:///{tmp_path}/other.db"
    assert "MLFLOW_TRACKING_URI" not in registry.os.environ
    assert registry.tracking_uri(tmp_path) == f"sqlite:///{tmp_path}/mlflow.db"


def test_patience_puts_the_settings_back(monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "77")
    monkeypatch.delenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", raising=False)
    with registry.patience(0, 3):
        assert registry.os.environ["MLFLOW_HTTP_REQUEST_TIMEOUT"] == "3"
    assert registry.os.environ["MLFLOW_HTTP_REQUEST_TIMEOUT"] == "77"
    assert "MLFLOW_HTTP_REQUEST_MAX_RETRIES" not in registry.os.environ


def test_one_mlflow_run_a_run(fabricate):
    run = fabricate()
    opened = registry.open_tracking(run)
    assert registry.open_tracking(run) == opened
    (run.root / "mlflow.json").unlink()  # killed before it was remembered
    assert registry.open_tracking(run) == opened
    found = client(run).get_run(opened["run_id"])
    assert found.info.run_name == "one"
    assert found.data.params["train.epochs"] == str(run.config.train.epochs)
    assert found.data.tags["dssm.test_day"] == "2024-01-07"


def test_a_run_is_found_by_the_dag_run_that_made_it(fabricate):
    from tasks.runs_page import wanted

    ours, other = fabricate("ours"), fabricate("other")
    note_origin(
        ours,
        {"airflow.dag_id": "dssm_training", "airflow.run_id": "manual__2024-03-07T00:00:00+00:00"},
    )
    run_id, _ = (registry.open_tracking(run)["run_id"] for run in (ours, other))
    assert registry.page(ours) == registry.open_tracking(ours)["url"]
    experiments = [each.experiment_id for each in client(ours).search_experiments()]
    for filtered in (
        wanted("dssm_training", ""),
        wanted("dssm_training", "manual__2024-03-07T00:00:00+00:00"),
    ):
        assert [run.info.run_id for run in client(ours).search_runs(experiments, filtered)] == [
            run_id
        ]
    assert not client(ours).search_runs(experiments, wanted("dssm_training", "another"))


def test_live_points_and_the_history_make_each_point_once(fabricate):
    run = fabricate()
    registry.live_logger(run)({"valid_recall@200": 0.1}, 10)
    history = [
        {"step": 10, "valid_recall@200": 0.1},
        {"step": 20, "valid_recall@200": 0.2, "note": "text"},
    ]
    run_id = registry.open_tracking(run)["run_id"]
    for _ in range(2):
        registry._complete(client(run), run_id, history)
    points = client(run).get_metric_history(run_id, "valid_recall_at_200")
    assert [(point.step, point.value) for point in points] == [(10, 0.1), (20, 0.2)]


def test_a_training_that_goes_on_from_its_checkpoint_logs_no_point_twice(fabricate):
    run = fabricate()
    for _ in range(2):
        write = registry.live_logger(run)
        write({"train_loss": 0.1}, 20)
        write({"train_loss": 0.3}, 40)
    write({"train_loss": 0.2}, 40)  # another number is another point
    points = client(run).get_metric_history(registry.open_tracking(run)["run_id"], "train_loss")
    assert [(point.step, point.value) for point in points] == [(20, 0.1), (40, 0.3), (40, 0.2)]


def test_numbers_without_a_step_are_logged_once(fabricate):
    run = fabricate()
    run_id = registry.open_tracking(run)["run_id"]
    for count in (3, 3, 4):
        registry._log_numbers(client(run), run_id, {"rows.test": count, "verdict": None})
    assert [point.value for point in client(run).get_metric_history(run_id, "rows/test")] == [3, 4]


def lost_answer(monkeypatch, where, name, times=1):
    """Let a request of MLflow do its work, and lose the answer."""
    asked, ask = [], getattr(where, name)

    def lose(*arguments, **named):
        asked.append(name)
        answer = ask(*arguments, **named)
        if len(asked) <= times:
            raise MlflowException("connection aborted")
        return answer

    monkeypatch.setattr(where, name, lose)
    return asked


def test_a_run_whose_creation_was_not_answered_is_found(fabricate, monkeypatch):
    run = fabricate()
    asked = lost_answer(monkeypatch, MlflowClient, "create_run")
    opened = registry.open_tracking(run)
    (found,) = client(run).search_runs([client(run).get_experiment_by_name("made").experiment_id])
    assert (found.info.run_id, len(asked)) == (opened["run_id"], 1)
    assert found.data.params["seed"] == str(run.config.seed)


def test_settings_that_mlflow_did_not_take_are_logged_by_the_next_attempt(fabricate, monkeypatch):
    run = fabricate()
    with monkeypatch.context() as patch:
        patch.setattr(
            MlflowClient,
            "log_batch",
            lambda *_, **__: (_ for _ in ()).throw(MlflowException("away")),
        )
        with pytest.raises(ServiceError, match="away"):
            registry.open_tracking(run)
    run_id = registry.open_tracking(run)["run_id"]
    assert client(run).get_run(run_id).data.params["seed"] == str(run.config.seed)


def test_a_version_whose_registration_was_not_answered_is_not_registered_again(
    fabricate, finish, monkeypatch
):
    import mlflow

    run = fabricate()
    finish(run, "recall_gate", info=PASSED)
    run.step("x").mkdir()
    asked = lost_answer(monkeypatch, mlflow, "register_model")
    assert registry.register(run, run.step("x")).info["version"] == "1"
    assert len(client(run).search_model_versions("name = 'dssm-made'")) == len(asked) == 1


@pytest.mark.parametrize("lost", [0, 1, 2])
def test_what_was_not_made_is_made_and_what_cannot_be_made_is_said(lost):
    answers = iter([*[MlflowException("away")] * lost, 7])

    def make():
        if isinstance(answer := next(answers, MlflowException("never")), Exception):
            raise answer
        return answer

    assert registry.once(make, lambda: None) == 7
    with pytest.raises(MlflowException, match="never"):
        registry.once(make, lambda: None)


def test_a_server_that_was_reached_is_waited_for(fabricate, monkeypatch):
    """A new address is told within seconds; after that MLflow's own retries, minutes of them,
    stand.
    """
    tries, run = [], fabricate()
    monkeypatch.setattr(
        MlflowClient,
        "search_experiments",
        lambda *_, **__: tries.append(os.environ.get("MLFLOW_HTTP_REQUEST_MAX_RETRIES")),
    )
    monkeypatch.setattr(registry, "_reached", set())
    for _ in range(2):
        client(run)
    assert tries == ["1", None]


def test_a_version_that_does_not_load_in_time_is_told(fabricate, monkeypatch):
    monkeypatch.setattr(registry, "ANSWER_TIMEOUT_S", 0.1)
    with pytest.raises(
        ServiceError, match=r"version 1 of 'dssm-made' was not loaded within 0\.1 s"
    ):
        registry.answers("dssm-made", "1", fabricate().runs)


def test_mlflow_going_away_costs_one_warning(fabricate, monkeypatch, caplog):
    write = registry.live_logger(fabricate())
    calls = []

    def broken(*_):
        calls.append(1)
        raise OSError("gone")

    monkeypatch.setattr(registry, "_log_metrics", broken)
    monkeypatch.setattr(registry, "PAUSE_S", 0.0)
    with caplog.at_level(logging.WARNING, "dssm_core.registry.versions"):
        write({"a": 1.0}, 1)
        write({"a": 1.0}, 2)
    assert len(calls) == 2
    assert [
        record.levelname
        for record in caplog.records
        if record.name == "dssm_core.registry.versions"
    ] == ["WARNING"]
    monkeypatch.setattr(registry, "PAUSE_S", 1000.0)
    write({"a": 1.0}, 3)
    write({"a": 1.0}, 4)
    assert len(calls) == 3  # the last was not even tried


def test_a_refusal_finishes_the_run_with_its_reasons(fabricate, tmp_path):
    run = fabricate()
    for name in ("gate.json", "recall_curve.png"):
        (tmp_path / name).write_text("x")
    (tmp_path / "report.html").write_text("page")
    registry.log_gate(run, tmp_path, REFUSED)
    found = client(run).get_run(json.loads((run.root / "mlflow.json").read_text())["run_id"])
    assert found.info.status == "FINISHED"
    assert (found.data.tags["gate"], found.data.tags["gate.reasons"]) == ("failed", "bad")
    assert found.data.metrics == {"served/recall_at_200": 0.1}
    assert "report.html" in [file.path for file in client(run).list_artifacts(found.info.run_id)]


@pytest.mark.parametrize(("trial", "status"), [(True, "FINISHED"), (False, "RUNNING")])
def test_a_trial_ends_with_its_gate_other_runs_go_on(fabricate, tmp_path, trial, status):
    run = fabricate()
    if trial:
        registry.open_sweep([run], ["loss=bce"], "a sweep")
    (tmp_path / "gate.json").write_text("{}")
    run_id = registry.open_tracking(run)["run_id"]
    registry.log_gate(run, tmp_path, REFUSED | {"passed": True})
    assert client(run).get_run(run_id).info.status == status


def test_a_failure_is_told_and_the_next_attempt_runs_again(fabricate):
    run = fabricate()
    docs = run.root / "data_docs"
    docs.mkdir()
    (docs / "index.html").write_text("page")
    registry.mark_failed(run, "3 rows have no item")
    run_id = json.loads((run.root / "mlflow.json").read_text())["run_id"]
    found = client(run).get_run(run_id)
    assert (found.info.status, found.data.tags["error"]) == ("FAILED", "3 rows have no item")
    assert [file.path for file in client(run).list_artifacts(run_id, "data_docs")] == [
        "data_docs/index.html"
    ]
    assert registry.open_tracking(run)["run_id"] == run_id
    again = client(run).get_run(run_id)
    assert again.info.status == "RUNNING"
    assert "error" not in again.data.tags


def test_failing_to_tell_a_failure_hides_no_error(fabricate, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    registry.mark_failed(fabricate(), "why")


def test_registered_once_and_served_as_it_was_registered(fabricate, finish, tmp_path):
    import mlflow

    one, two = fabricate("one"), fabricate("two", "2024-01-08")
    for run in (one, two):
        finish(run, "recall_gate", info=PASSED)
        run.step("x").mkdir()
    assert registry.champion(one, tmp_path / "none") is None
    first = registry.register(one, one.step("x")).info
    assert (
        registry.register(one, one.step("x")).info == first
    )  # the same content is the same version
    assert first["version"] == "1"
    assert registry.register(two, two.step("x")).info["version"] == "2"
    name, runs = one.config.model_name, one.runs
    assert registry.registered(name, runs).aliases() == {"challenger": "2"}
    registry.registered(name, runs).point("champion", "1")
    (tmp_path / "copy").mkdir()
    found = registry.champion(two, tmp_path / "copy")
    assert found.version == "1"
    assert (found.folder / "config.json").read_bytes() == (one.root / "config.json").read_bytes()
    model = mlflow.pyfunc.load_model(f"models:/{name}@champion")
    answer = model.predict(pd.DataFrame({"user_id": np.array([3, 1])}), params={"k": 1})
    assert answer.item_ids.tolist() == [[30], [10]]
    assert not list(runs.rglob("*.pkl"))


def test_a_later_run_finds_what_the_champions_window_was_like(fabricate, finish, tmp_path):
    run = fabricate()
    finish(run, "recall_gate", info=PASSED)
    run.step("x").mkdir()
    version = registry.register(run, run.step("x")).info["version"]
    registry.registered(run.config.model_name, run.runs).point("champion", version)
    (tmp_path / "before").mkdir()
    assert registry.champion(run, tmp_path / "before").drift is None
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
    run_id = registry.open_tracking(run)["run_id"]
    registry._log_drift(client(run), run, run_id)
    (tmp_path / "after").mkdir()
    assert registry.champion(run, tmp_path / "after").drift == window
    (tmp_path / "drift.json").write_text('{"of": "another version"}')
    client(run).log_artifact(run_id, str(tmp_path / "drift.json"))
    (tmp_path / "other").mkdir()
    assert registry.champion(run, tmp_path / "other").drift is None
    points = client(run).get_metric_history(run_id, "drift/features")
    assert [(point.step, point.value) for point in points] == [(1, 0.25)]


def test_a_run_of_a_past_day_does_not_become_challenger(fabricate, finish):
    newer, past = fabricate("newer", "2024-01-08"), fabricate("past", "2024-01-07")
    for run in (newer, past):
        finish(run, "recall_gate", info=PASSED)
        run.step("x").mkdir()
        registry.register(run, run.step("x"))
    store = registry.registered(newer.config.model_name, newer.runs)
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
    assert registry.newer_day(one, other) is newer


def test_a_refused_run_is_not_registered(fabricate, finish, tmp_path):
    run = fabricate()
    finish(run, "recall_gate", info=REFUSED)
    with pytest.raises(ConfigError, match="did not pass its gate"):
        registry.register(run, tmp_path)
