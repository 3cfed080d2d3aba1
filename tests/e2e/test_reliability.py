"""What holds when a server dies under the work: a real MLflow, killed and started again on its
port.
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
from dssm_core.operation import promotion
from dssm_core.operation.promotion import decide
from dssm_core.registry.versions import open_model
from local import processes, servers
from tests.conftest import REPO, small_config, wait_until

pytestmark = pytest.mark.e2e
OUTAGE_S = 30
PROCESSES, OPERATIONS = 4, 125  # of each
KILLS = 6
EPOCHS = 30
CURVES = ("train_loss", "learning_rate", "valid_recall_at_200", "epoch")


class Server:
    """An MLflow as local/servers.py starts it, alone; `kill` leaves it no time to say goodbye."""

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
    made = Server(tmp_path_factory.mktemp("mlflow"))
    try:
        made.start()
        yield made
    finally:
        assert processes.stop(made.site.state) == []


@contextmanager
def dssm(folder: Path, url: str | None, *arguments: str):
    """A command of the CLI while it runs; what it prints is in out.txt and err.txt."""
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
    """Its exit status, and all that it printed."""
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
    """Every point of every metric of a run, in order."""
    run_id = json.loads((run / "mlflow.json").read_bytes())["run_id"]
    names = client.get_run(run_id).data.metrics
    return {
        name: sorted((point.step, point.value) for point in client.get_metric_history(run_id, name))
        for name in names
    }


def assert_equal_points(found, wanted) -> None:
    """The same points, each once; what the machine took for them is its own affair."""
    assert {name: [step for step, _ in known] for name, known in found.items()} == {
        name: [step for step, _ in known] for name, known in wanted.items()
    }
    assert {name: found[name] for name in CURVES} == {name: wanted[name] for name in CURVES}
    assert all(len({step for step, _ in found[name]}) == len(found[name]) for name in found)


def assert_one_finished_run_with_one_version(client: MlflowClient, name: str) -> None:
    (run,) = client.search_runs([client.get_experiment_by_name(name).experiment_id])
    (version,) = client.search_model_versions(f"name = 'dssm-{name}'")
    assert (run.info.status, version.run_id) == ("FINISHED", run.info.run_id)
    assert client.get_registered_model(f"dssm-{name}").aliases == {"challenger": version.version}


# --- a server that is killed


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """The points of a run with nothing in its way."""
    folder = tmp_path_factory.mktemp("undisturbed")
    with dssm(folder, None, "run", config(folder, train__epochs=EPOCHS), "--json") as process:
        run = run_folder(process, folder)
    local = f"sqlite:///{folder / 'runs' / 'mlflow.db'}"
    return points(MlflowClient(tracking_uri=local, registry_uri=local), run)


@pytest.fixture(scope="module")
def survivor(server, tmp_path_factory):
    """The folder of a run whose MLflow was killed while it trained, and again while it open_model."""
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


def test_a_run_outlives_its_mlflow_without_losing_a_point(server, survivor, undisturbed):
    assert_equal_points(points(server.client, survivor), undisturbed)
    assert (survivor / "register_model" / "manifest.json").is_file()


def test_a_registration_outlives_its_mlflow_as_one_version(server, survivor):
    assert_one_finished_run_with_one_version(server.client, "small")


def test_a_promotion_outlives_its_mlflow_and_is_made_once(server, survivor):
    """First begun while MLflow is away, which is said at once; then MLflow goes away under it."""
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
    (line,) = promotion.history_file("dssm-small", folder / "runs").read_text().splitlines()
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
    """Hands every request on to MLflow and loses the first answer to each kind of POST, when its
    work is done.
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


def test_an_answer_that_is_lost_doubles_nothing(server, lossy, tmp_path):
    """MLflow's client repeats a request whose answer it did not get, though the first may have done
    the work.

    Where MLflow itself cannot bear that (the outputs of a run), the command says so, and completes
    it when it is given again.
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
    found = points(server.client, Path(json.loads(out.splitlines()[-1])["run"]))
    assert all(len({step for step, _ in known}) == len(known) for known in found.values())


# --- many who decide at once

MODEL = "dssm-contested"


def operate(runs: Path, seed: int) -> None:
    """Promote or roll back at random; to be refused is an answer too."""
    generator = random.Random(seed)
    for nth in range(OPERATIONS):
        action = generator.choice(["promote", "rollback"])
        version = generator.choice([1, 2, 3, 4] if action == "promote" else [None, 1, 2, 3, 4])
        with suppress(ConfigError, ConflictError):
            decide(action, MODEL, runs, datetime.now(UTC), f"process {seed}", str(nth), version)


@pytest.fixture
def contested(server, tmp_path, monkeypatch):
    """A model of its own with four versions on the real server; the first is champion."""
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


def begin(runs: Path, seed: int):
    worker = multiprocessing.get_context("spawn").Process(target=operate, args=(runs, seed))
    worker.start()
    return worker


def test_500_promotions_and_rollbacks_by_four_processes_leave_a_history_that_replays(
    contested, tmp_path
):
    started, seen = time.monotonic(), []
    workers = [begin(tmp_path, seed) for seed in range(PROCESSES)]
    while any(worker.is_alive() for worker in workers):
        seen.append(
            contested.client.get_model_version_by_alias(MODEL, "champion").version
        )  # raises where there is none
        time.sleep(0.05)
    took, known = time.monotonic() - started, promotion.history(MODEL, tmp_path)
    print(
        f"\n{PROCESSES * OPERATIONS} operations in {took:.0f} s, {len(known)} moves, {len(seen)} looks"
    )
    assert [worker.exitcode for worker in workers] == [0] * PROCESSES
    assert {made.by for made in known} == {
        "first",
        *(f"process {seed}" for seed in range(PROCESSES)),
    }
    assert contested.aliases() == replayed(known)
    assert set(seen) <= {"1", "2", "3", "4"}


def test_killed_at_any_moment_the_history_still_replays(contested, tmp_path):
    for seed in range(KILLS):
        before, worker = len(promotion.history(MODEL, tmp_path)), begin(tmp_path, seed)
        wait_until(
            lambda before=before: len(promotion.history(MODEL, tmp_path)) > before + 1, "it decides"
        )
        time.sleep(random.Random(seed).uniform(0, 0.5))
        worker.kill()
        worker.join()
        assert worker.exitcode == -signal.SIGKILL
        promotion.notice(MODEL, tmp_path, datetime.now(UTC))
        assert contested.aliases() == replayed(promotion.history(MODEL, tmp_path))


def replayed(known) -> dict[str, str | None]:
    """The aliases after all lines, from nothing but which version each made champion."""
    champion = previous = None
    for made in known:
        assert made.action in promotion.MOVES
        champion, previous = made.version, champion
        assert (made.champion, made.previous) == (champion, previous)
    return {"champion": champion, "previous_champion": previous}
