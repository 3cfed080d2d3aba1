"""The pipeline while its MLflow server is away: a real server is killed and started again on the
same port.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import psutil
import pytest
import yaml
from mlflow import MlflowClient

from dssm_core.errors import ConfigError, ConflictError
from dssm_core.operation import history, promotion
from dssm_core.operation.promotion import decide
from dssm_core.registry.versions import open_model
from local import processes, servers
from tests.conftest import REPO, small_config, wait_until

pytestmark = pytest.mark.e2e
OUTAGE_S = 30
PROCESSES = 4
KILLS = 6
OPERATIONS = 125  # of a process that is killed before it has made them all
EPOCHS = 30
CURVES = ("train_loss", "learning_rate", "valid_recall_at_200", "train_epoch")


class Server:
    """An MLflow server, started as local/servers.py does, which can be killed."""

    def __init__(self, state: Path) -> None:
        self.site = servers.Site(state, {"mlflow_port": processes.free_port(0)})
        self.url = self.site.mlflow_url
        self.client = MlflowClient(tracking_uri=self.url, registry_uri=self.url)

    def start(self) -> None:
        env = os.environ | {
            "MLFLOW_DISABLE_TELEMETRY": "true",
            "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        }
        processes.start(self.site.state, "mlflow", servers.mlflow_command(self.site), env)
        wait_until(self.answers, "MLflow answers")

    def answers(self) -> bool:
        with suppress(httpx.HTTPError):
            return httpx.get(f"{self.url}/health", timeout=5, trust_env=False).text == "OK"
        return False

    def kill(self) -> None:
        leader = processes.leader(self.site.state, "mlflow")
        family = [leader, *leader.children(recursive=True)]
        for process in family:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(family, timeout=30)
        assert not self.answers()

    def outage(self) -> None:
        self.kill()
        time.sleep(OUTAGE_S)
        self.start()


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    mlflow = Server(tmp_path_factory.mktemp("mlflow"))
    try:
        mlflow.start()
        yield mlflow
    finally:
        assert processes.stop(mlflow.site.state) == []


@contextmanager
def dssm(folder: Path, url: str | None, *arguments: str):
    """The process of a command of the CLI, which prints to out.txt and err.txt of the folder."""
    env = {key: value for key, value in os.environ.items() if not key.startswith("MLFLOW_")}
    env |= {"DSSM_RUNS": str(folder / "runs"), "PYTHONPATH": str(REPO)} | (
        {"MLFLOW_TRACKING_URI": url} if url else {}
    )
    with (folder / "out.txt").open("w") as out, (folder / "err.txt").open("w") as err:
        process = subprocess.Popen(
            [sys.executable, "-m", "dssm_core.cli", *arguments], env=env, stdout=out, stderr=err
        )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def ended(process, folder: Path) -> tuple[int, str, str]:
    """Wait until a command has ended; returns its exit status, its output and its errors."""
    process.wait(timeout=600)
    return process.returncode, (folder / "out.txt").read_text(), (folder / "err.txt").read_text()


def config(folder: Path, **changes) -> str:
    file = folder / "small.yaml"
    file.write_text(yaml.safe_dump(small_config(**changes)))
    return str(file)


def run_folder(process, folder: Path) -> Path:
    status, out, err = ended(process, folder)
    assert status == 0, err[-3000:]
    return Path(json.loads(out.splitlines()[-1])["run"])


def points(client: MlflowClient, run: Path) -> dict[str, list[tuple[int, float]]]:
    """The points (step, value) of every metric of a run, sorted by step. The use of the machine
    depends on the machine.
    """
    run_id = json.loads((run / "mlflow.json").read_bytes())["run_id"]
    names = client.get_run(run_id).data.metrics
    return {
        name: sorted((point.step, point.value) for point in client.get_metric_history(run_id, name))
        for name in names
        if not name.startswith("system/")
    }


def steps(metrics) -> dict[str, list[int]]:
    """The steps of the points of each metric."""
    return {name: [step for step, _ in curve] for name, curve in metrics.items()}


def assert_no_doubles(metrics) -> None:
    assert all(len(set(logged)) == len(logged) for logged in steps(metrics).values())


def assert_equal_points(metrics, expected) -> None:
    """The same points, each once. The values of metrics such as seconds may differ."""
    assert steps(metrics) == steps(expected)
    assert {name: metrics[name] for name in CURVES} == {name: expected[name] for name in CURVES}
    assert_no_doubles(metrics)


def assert_one_finished_run_with_one_version(client: MlflowClient, name: str) -> None:
    (run,) = client.search_runs([client.get_experiment_by_name(name).experiment_id])
    (version,) = client.search_model_versions(f"name = 'dssm-{name}'")
    assert (run.info.status, version.run_id) == ("FINISHED", run.info.run_id)
    assert client.get_registered_model(f"dssm-{name}").aliases == {"challenger": version.version}


# --- a server that is killed


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """The points of a run without an outage."""
    folder = tmp_path_factory.mktemp("undisturbed")
    with dssm(folder, None, "run", config(folder, train__epochs=EPOCHS), "--json") as process:
        run = run_folder(process, folder)
    local = f"sqlite:///{folder / 'runs' / 'mlflow.db'}"
    return points(MlflowClient(tracking_uri=local, registry_uri=local), run)


@pytest.fixture(scope="module")
def survivor(server, tmp_path_factory):
    """The folder of a run whose MLflow was killed during training and again during registration."""
    folder = tmp_path_factory.mktemp("survivor")
    with dssm(folder, server.url, "run", config(folder, train__epochs=EPOCHS), "--json") as process:
        for sign in (".train_towers.part/checkpoint.pt", ".register_model.part/bundle"):
            wait_until(
                lambda sign=sign: (
                    list(folder.glob(f"runs/*/*/*/{sign}")) or process.poll() is not None
                ),
                sign,
            )
            assert process.poll() is None, (folder / "err.txt").read_text()[-3000:]
            server.outage()
        return run_folder(process, folder)


def test_a_run_survives_an_outage_of_mlflow_without_losing_a_point(server, survivor, undisturbed):
    assert_equal_points(points(server.client, survivor), undisturbed)
    assert (survivor / "register_model" / "manifest.json").is_file()


def test_a_registration_survives_an_outage_and_makes_one_version(server, survivor):
    assert_one_finished_run_with_one_version(server.client, "small")


def test_a_promotion_survives_an_outage_and_is_made_once(server, survivor):
    """A promotion that starts while MLflow is away fails at once; one that has started waits."""
    folder = survivor.parents[3]
    server.kill()
    with dssm(
        folder, server.url, "promote", "dssm-small", "--by", "ann", "--reason", "good"
    ) as process:
        status, _, err = ended(process, folder)
    server.start()
    assert (status, f"MLflow at {server.url} failed: " in err) == (1, True), err
    with dssm(
        folder, server.url, "promote", "dssm-small", "--by", "ann", "--reason", "good"
    ) as process:
        wait_until(
            lambda: "loading and querying" in (folder / "err.txt").read_text(),
            "the version is asked",
        )
        server.outage()
        status, out, err = ended(process, folder)
    assert status == 0, err[-3000:]
    (line,) = history.history_file("dssm-small", folder / "runs").read_text().splitlines()
    assert json.loads(line) == json.loads(out) | {
        "action": "promote",
        "version": "1",
        "champion": "1",
        "previous": None,
    }
    assert server.client.get_registered_model("dssm-small").aliases == {
        "challenger": "1",
        "champion": "1",
    }


# --- answers that are lost


class Lossy(BaseHTTPRequestHandler):
    """A proxy to MLflow that drops the first answer to each path of a POST, after MLflow has done
    the work.
    """

    def do_GET(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        headers = {name: value for name, value in self.headers.items() if name != "Host"} | {
            "Accept-Encoding": "identity"
        }
        answer = httpx.request(
            self.command,
            self.server.url + self.path,
            content=body,
            headers=headers,
            timeout=60,
            trust_env=False,
        )
        if self.command == "POST" and answer.is_success and self.path not in self.server.lost:
            self.server.lost.append(self.path)
            return
        self.send_response(answer.status_code)
        self.send_header("Content-Type", answer.headers.get("Content-Type", "text/plain"))
        self.send_header("Content-Length", str(len(answer.content)))
        self.end_headers()
        self.wfile.write(answer.content)

    do_POST = do_PUT = do_PATCH = do_DELETE = do_GET

    def log_message(self, *_):
        pass


@pytest.fixture
def lossy(server):
    with ThreadingHTTPServer(("127.0.0.1", 0), Lossy) as between:
        between.url, between.lost = server.url, []
        threading.Thread(target=between.serve_forever).start()
        yield between
        between.shutdown()


def test_lost_answers_double_nothing(server, lossy, tmp_path):
    """MLflow's client repeats a request whose answer is lost, although MLflow has done the work.

    Where MLflow itself refuses the repetition (the outputs of a run), the command fails with a
    ServiceError, and the same command completes the run.
    """
    command = ("run", config(tmp_path, name="lossy", train__epochs=1), "--json")
    for _ in range(2):
        with dssm(tmp_path, f"http://127.0.0.1:{lossy.server_port}", *command) as process:
            status, out, err = ended(process, tmp_path)
        assert status == 0 or "ServiceError: MLflow at" in err, err[-3000:]
    assert status == 0, err[-3000:]
    lost = {path.rpartition("2.0/mlflow/")[2] for path in lossy.lost}
    assert lost >= {
        "runs/create",
        "runs/log-batch",
        "registered-models/create",
        "model-versions/create",
        "registered-models/alias",
    }
    assert_one_finished_run_with_one_version(server.client, "lossy")
    assert_no_doubles(points(server.client, Path(json.loads(out.splitlines()[-1])["run"])))


# --- concurrent decisions

MODEL = "dssm-contested"


def operate(runs: Path, seed: int, operations: int) -> None:
    """Promote or roll back at random until `operations` decisions were this process's: others came
    too late, or found that their version was the champion.
    """
    generator, me = random.Random(seed), f"process {seed}"
    made = 0
    while made < operations:
        action = generator.choice(["promote", "rollback"])
        version = generator.choice([1, 2, 3, 4] if action == "promote" else [None, 1, 2, 3, 4])
        with suppress(ConfigError, ConflictError):
            decided = decide(action, MODEL, runs, datetime.now(UTC), me, str(made), version)
            made += decided.by == me


@pytest.fixture
def contested(server, tmp_path, monkeypatch):
    """A model with four versions on the server, of which the first is the champion."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server.url)
    store = open_model(MODEL, tmp_path)
    store.client.create_registered_model(MODEL)
    for number in (1, 2, 3, 4):
        store.client.create_model_version(
            MODEL, source=f"s3://nowhere/{number}", tags={"dssm.test_day": "2024-02-01"}
        )
    decide("promote", MODEL, tmp_path, datetime.now(UTC), "first", version=1)
    yield store
    store.client.delete_registered_model(MODEL)


def start_worker(runs: Path, seed: int, operations: int):
    spawn = multiprocessing.get_context("spawn")
    worker = spawn.Process(target=operate, args=(runs, seed, operations))
    worker.start()
    return worker


@pytest.mark.parametrize("operations", [8, pytest.param(60, marks=pytest.mark.soak)])
def test_promotions_and_rollbacks_by_four_processes_leave_a_history_that_replays(
    contested, tmp_path, operations
):
    """Each process makes `operations` moves while the champion is read all the time."""
    champions = []
    workers = [start_worker(tmp_path, seed, operations) for seed in range(PROCESSES)]
    while any(worker.is_alive() for worker in workers):
        # Raises an error if the model has no champion.
        champions.append(contested.client.get_model_version_by_alias(MODEL, "champion").version)
        time.sleep(0.05)
    decisions = history.history(MODEL, tmp_path)
    assert [worker.exitcode for worker in workers] == [0] * PROCESSES
    assert {decision.by for decision in decisions} == {
        "first",
        *(f"process {seed}" for seed in range(PROCESSES)),
    }
    assert contested.aliases() == replayed(decisions)
    assert set(champions) <= {"1", "2", "3", "4"}


def test_killed_at_any_moment_the_history_still_replays(contested, tmp_path):
    for seed in range(KILLS):
        before = len(history.history(MODEL, tmp_path))
        worker = start_worker(tmp_path, seed, OPERATIONS)
        wait_until(
            lambda before=before: len(history.history(MODEL, tmp_path)) > before + 1, "it decides"
        )
        time.sleep(random.Random(seed).uniform(0, 0.5))
        worker.kill()
        worker.join()
        assert worker.exitcode == -signal.SIGKILL
        promotion.notice(MODEL, tmp_path, datetime.now(UTC))
        assert contested.aliases() == replayed(history.history(MODEL, tmp_path))


def replayed(decisions) -> dict[str, str | None]:
    """The aliases after all decisions, computed only from the version that each made champion."""
    champion = previous = None
    for decision in decisions:
        assert decision.action in promotion.MOVES
        champion, previous = decision.version, champion
        assert (decision.champion, decision.previous) == (champion, previous)
    return {"champion": champion, "previous_champion": previous}
