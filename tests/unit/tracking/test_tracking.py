"""MLflow runs in a SQLite file: which are found again, and what is logged once."""

import json
import logging
import os
import socket
import threading
import time
from types import SimpleNamespace

import pytest
from mlflow import MlflowClient
from mlflow.entities import Metric
from mlflow.exceptions import MlflowException

from dssm_core.errors import LostAnswer, ServiceError
from dssm_core.runs.run import note_origin
from dssm_core.tracking import client as tracking_client
from dssm_core.tracking import points as tracking_points
from dssm_core.tracking.client import (
    connect,
    create_once,
    default_server,
    log_metrics_once,
    probe,
    tracking_uri,
)
from dssm_core.tracking.points import live_logger, log_history, log_numbers, metric_name
from dssm_core.tracking.runs import flatten, mark_failed, mlflow_run_url, open_mlflow_run, run_name
from tests.unit.conftest import lose_answers

pytestmark = pytest.mark.usefixtures("local_mlflow")


def client(run):
    return connect(run.runs)


def test_flatten_and_names_by_hand():
    assert flatten({"a": {"b": 1, "c": {"d": 2}}, "e": [3]}) == {
        "a.b": 1,
        "a.c.d": 2,
        "e": [3],
    }
    assert metric_name("served.recall@200") == "served/recall_at_200"


def test_a_server_that_is_down_is_named_at_once(fabricate, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    with pytest.raises(
        ServiceError, match=r"MLflow at http://127\.0\.0\.1:9 .* run the step again"
    ):
        open_mlflow_run(fabricate())


def test_speaking_to_one_server_leaves_no_trace_for_the_next(tmp_path):
    with default_server(f"sqlite:///{tmp_path}/other.db"):
        assert os.environ["MLFLOW_TRACKING_URI"] == f"sqlite:///{tmp_path}/other.db"
    assert "MLFLOW_TRACKING_URI" not in os.environ
    assert tracking_uri(tmp_path) == f"sqlite:///{tmp_path}/mlflow.db"


def test_a_creation_is_one_request_and_the_settings_are_restored(monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "77")
    monkeypatch.delenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", raising=False)
    retries = create_once(lambda: os.environ["MLFLOW_HTTP_REQUEST_MAX_RETRIES"], lambda: None)
    assert retries == "0"
    assert os.environ["MLFLOW_HTTP_REQUEST_TIMEOUT"] == "77"
    assert "MLFLOW_HTTP_REQUEST_MAX_RETRIES" not in os.environ


def test_one_mlflow_run_a_run(fabricate):
    run = fabricate()
    opened = open_mlflow_run(run)
    assert open_mlflow_run(run) == opened
    (run.root / "mlflow.json").unlink()  # killed before it was remembered
    assert open_mlflow_run(run) == opened
    found = client(run).get_run(opened.run_id)
    assert found.info.run_name == "2024-01-07 mlp·sampled_softmax"
    assert found.data.params["train.epochs"] == str(run.config.train.epochs)
    assert found.data.tags["dssm.test_day"] == "2024-01-07"


def test_runs_are_called_by_what_makes_them_different(fabricate):
    run = fabricate()
    changes = ["train.epochs=3", 'sampler.kind="uniform"', "split.test_day=2024-01-07"]
    run.__dict__["changed"] = (*changes, "loss.kind=bce")
    assert run_name(run) == "2024-01-07 mlp·sampled_softmax epochs=3 sampler=uniform"
    run.__dict__["changed"] = tuple(f"train.s{number}={number}" for number in range(5))
    assert run_name(run) == "2024-01-07 mlp·sampled_softmax s0=0 s1=1 s2=2 s3=3 …"
    names = []
    run.__dict__["changed"] = ()
    for made in (run, fabricate("two"), fabricate("three")):
        opened = open_mlflow_run(made)
        names.append(client(run).get_run(opened.run_id).info.run_name)
    base = "2024-01-07 mlp·sampled_softmax"
    assert names == [base, f"{base} #2", f"{base} #3"]


def test_an_experiment_says_what_it_is(fabricate):
    run = fabricate()
    open_mlflow_run(run)
    tags = client(run).get_experiment_by_name(run.config.name).tags
    assert tags["mlflow.experimentKind"] == "custom_model_development"
    assert "headline/" in tags["mlflow.note.content"]


def test_a_run_is_found_by_the_dag_run_that_made_it(fabricate):
    from tasks.runs_page import wanted

    ours, other = fabricate("ours"), fabricate("other")
    note_origin(
        ours,
        {"airflow.dag_id": "dssm_training", "airflow.run_id": "manual__2024-03-07T00:00:00+00:00"},
    )
    run_id, _ = (open_mlflow_run(run).run_id for run in (ours, other))
    assert mlflow_run_url(ours) == open_mlflow_run(ours).url
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
    with live_logger(run) as write:
        write({"valid_recall@200": 0.1}, 10)
    history = [
        {"step": 10, "valid_recall@200": 0.1},
        {"step": 20, "valid_recall@200": 0.2, "note": "text"},
    ]
    run_id = open_mlflow_run(run).run_id
    for _ in range(2):
        log_history(client(run), run_id, history)
    points = client(run).get_metric_history(run_id, "valid_recall_at_200")
    assert [(point.step, point.value) for point in points] == [(10, 0.1), (20, 0.2)]


def test_a_training_that_goes_on_from_its_checkpoint_logs_no_point_twice(fabricate):
    run = fabricate()
    for _ in range(2):
        with live_logger(run) as write:
            write({"train_loss": 0.1}, 20)
            write({"train_loss": 0.3}, 40)
    write({"train_loss": 0.2}, 40)  # another number is another point
    points = client(run).get_metric_history(open_mlflow_run(run).run_id, "train_loss")
    assert [(point.step, point.value) for point in points] == [(20, 0.1), (40, 0.3), (40, 0.2)]


def test_numbers_without_a_step_are_logged_once(fabricate):
    run = fabricate()
    run_id = open_mlflow_run(run).run_id
    for count in (3, 3, 4):
        log_numbers(client(run), run_id, {"rows.test": count, "verdict": None})
    assert [point.value for point in client(run).get_metric_history(run_id, "rows/test")] == [3, 4]


def test_a_run_whose_creation_was_not_answered_is_found(fabricate, monkeypatch):
    run = fabricate()
    asked = lose_answers(monkeypatch, MlflowClient, "create_run")
    opened = open_mlflow_run(run)
    (found,) = client(run).search_runs([client(run).get_experiment_by_name("made").experiment_id])
    assert (found.info.run_id, len(asked)) == (opened.run_id, 1)
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
            open_mlflow_run(run)
    run_id = open_mlflow_run(run).run_id
    assert client(run).get_run(run_id).data.params["seed"] == str(run.config.seed)


@pytest.mark.parametrize("lost", [0, 1, 2])
def test_what_was_not_made_is_made_and_what_cannot_be_made_is_said(lost):
    answers = iter([*[MlflowException("away")] * lost, 7])

    def make():
        if isinstance(answer := next(answers, MlflowException("never")), Exception):
            raise answer
        return answer

    assert create_once(make, lambda: None) == 7
    with pytest.raises(MlflowException, match="never"):
        create_once(make, lambda: None)


def test_only_a_server_that_never_answered_is_probed(fabricate, monkeypatch):
    """An unknown server fails within seconds; later requests have MLflow's own retries."""
    probes = []
    run = fabricate()
    monkeypatch.setattr(tracking_client, "probe", probes.append)
    monkeypatch.setattr(tracking_client, "_reached", set())
    for _ in range(2):
        client(run)
    assert probes == [tracking_uri(run.runs)]


@pytest.fixture
def silent_server():
    """The URL of a server that accepts connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


def test_a_live_point_waits_for_a_silent_server_only_for_its_timeout(silent_server):
    """Neither retries nor the environment of the process play a part in it."""
    before = dict(os.environ)
    server = SimpleNamespace(tracking_uri=silent_server)
    started = time.monotonic()
    with pytest.raises(MlflowException, match="timeout"):
        log_metrics_once(server, "run", [Metric("loss", 0.5, 0, 1)], timeout_s=1)
    assert time.monotonic() - started < 10
    assert dict(os.environ) == before


def test_a_server_that_answers_nothing_is_named(silent_server, monkeypatch):
    monkeypatch.setattr(tracking_client, "PROBE_TIMEOUT_S", 0.2)
    with pytest.raises(ServiceError, match=rf"MLflow at {silent_server} failed"):
        probe(silent_server)


@pytest.fixture
def ending_server():
    """The URL of a server that ends in the middle of its answer."""

    def answer():
        connection, _ = server.accept()
        with connection:
            connection.recv(4096)
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 162\r\n\r\n{")

    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=answer)
        thread.start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}"
        thread.join()


def test_an_answer_that_is_cut_short_is_told_from_a_server_that_is_down(ending_server):
    experiments = MlflowClient(ending_server, ending_server).search_experiments
    with (
        pytest.raises(LostAnswer, match=r"failed: .*IncompleteRead.* run the step again"),
        tracking_client.mlflow_errors(ending_server),
    ):
        experiments()
    with pytest.raises(ServiceError) as down:
        probe("http://127.0.0.1:9")
    assert not isinstance(down.value, LostAnswer)


def test_mlflow_going_away_costs_one_warning(fabricate, monkeypatch, caplog):
    calls = []

    def broken(*_):
        calls.append(1)
        raise OSError("gone")

    monkeypatch.setattr(tracking_points, "log_metrics_once", broken)
    monkeypatch.setattr(tracking_points, "PAUSE_S", 0.0)
    name = "dssm_core.tracking.points"
    with live_logger(fabricate()) as write, caplog.at_level(logging.WARNING, name):
        write({"a": 1.0}, 1)
        write({"a": 1.0}, 2)
    assert len(calls) == 2
    assert [
        record.levelname for record in caplog.records if record.name == "dssm_core.tracking.points"
    ] == ["WARNING"]
    monkeypatch.setattr(tracking_points, "PAUSE_S", 1000.0)
    write({"a": 1.0}, 3)
    write({"a": 1.0}, 4)
    assert len(calls) == 3  # the last was not even tried


def test_a_failure_is_told_and_the_next_attempt_runs_again(fabricate):
    run = fabricate()
    docs = run.failed("validate_data") / "data_docs"
    docs.mkdir(parents=True)
    (docs / "index.html").write_text("page")
    mark_failed(run, "3 rows have no item")
    run_id = json.loads((run.root / "mlflow.json").read_text())["run_id"]
    found = client(run).get_run(run_id)
    assert (found.info.status, found.data.tags["error"]) == ("FAILED", "3 rows have no item")
    assert [file.path for file in client(run).list_artifacts(run_id, "data_docs")] == [
        "data_docs/index.html"
    ]
    assert open_mlflow_run(run).run_id == run_id
    again = client(run).get_run(run_id)
    assert again.info.status == "RUNNING"
    assert "error" not in again.data.tags


def test_failing_to_tell_a_failure_hides_no_error(fabricate, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    mark_failed(fabricate(), "why")
