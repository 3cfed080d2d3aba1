"""Fixtures that several folders of tests use: real click logs, real servers, a browser."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import date
from functools import partial
from pathlib import Path
from typing import Any

import duckdb
import httpx
import pytest
import yaml

from dssm_core.data.sources.synthetic import Synthetic
from dssm_core.retrieval.requests import read_queries
from local.airflow_api import DONE, WAITS

REPO = Path(__file__).resolve().parent.parent
# End-to-end modules that do not use the shared servers.
OTHER_MODULES = ("test_reliability.py", "test_globo_days.py", "test_globo_window.py")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: Any, log: Any) -> Any:
    """Give each process whole modules, and one process all modules that share `site`."""
    from xdist.scheduler import LoadScopeScheduling

    class Scheduling(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            module = Path(nodeid.partition("::")[0])
            shares_site = module.parent.name in ("e2e", "ui") and module.name not in OTHER_MODULES
            return "site" if shares_site else str(module)

    return Scheduling(config, log)


def embed_rows(encoder, frame):
    """Vectors of the users of a request, as a server embeds them."""
    asked = read_queries(frame, encoder.user_ids, encoder.item_ids)
    return encoder.embed(asked.codes, asked.histories, frame)


def evaluated(run: Any, data: Any = None) -> Any:
    """What evaluating a run up to build_index returns; data: of the run, where it is read."""
    from dssm_core.evaluation.answers import open_served
    from dssm_core.evaluation.evaluate import evaluate
    from dssm_core.evaluation.queries import read_evaluation_data

    with open_served(run) as opened:
        return evaluate(opened, data or read_evaluation_data(run))


def measured(run: Any, data: Any = None) -> dict[str, Any]:
    """The metrics of a run up to build_index, as the gate stores them."""
    return evaluated(run, data).metrics.as_json()


@pytest.fixture(scope="session")
def data_root() -> Path:
    """The folder of real click logs, $DSSM_DATA."""
    if "DSSM_DATA" not in os.environ:
        pytest.skip("DSSM_DATA names no folder of real click logs")
    return Path(os.environ["DSSM_DATA"])


@pytest.fixture(scope="session")
def chromium() -> str:
    """A Chromium to drive."""
    programs = map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))
    if not (program := next(filter(None, programs), None)):
        pytest.skip("no chromium is installed")
    return program


PATIENCE_S = 600
POLL_S = (0.1, 1.0)  # the first and the longest pause between two polls


def wait_until(ready: Callable[[], Any], what: str) -> Any:
    """Poll until `ready` returns a true value, and return that value.

    AssertionError after PATIENCE_S. The pauses grow, so that a short wait ends at once and a long
    wait costs the servers little.
    """
    deadline = time.monotonic() + PATIENCE_S
    pause_s, longest_s = POLL_S
    while not (value := ready()):
        assert time.monotonic() < deadline, f"waited {PATIENCE_S} s in vain until {what}"
        time.sleep(pause_s)
        pause_s = min(1.5 * pause_s, longest_s)
    return value


# Airflow must have seen the process of the review end. If the answer arrives before that, Airflow
# assumes that the process is lost and asks again.
ANSWER_AFTER_S = 3
TO_INDEX = (
    "ingest_data",
    "validate_data",
    "split_by_time",
    "sample_negatives",
    "train_towers",
    "export_embeddings",
    "build_index",
)
TRAINING = "dssm_training"


def complete(
    airflow: Any,
    run_id: str,
    option: str = "Keep as challenger",
    reason: str = "a test",
    dag: str = TRAINING,
) -> str:
    """Wait until a run has ended, and return its state.

    Each time that its review asks, the answer is given as on the review's page.
    """
    answered = 0

    def ended() -> bool:
        nonlocal answered
        review = airflow.tasks(dag, run_id).get("review", {})
        if review.get("state") in WAITS and review["try_number"] > answered:
            time.sleep(ANSWER_AFTER_S)
            airflow.answer(dag, run_id, option, reason)
            answered = review["try_number"]
        return airflow.state(dag, run_id) in DONE

    wait_until(ended, f"{run_id} ends")
    return str(airflow.state(dag, run_id))


def small_config(**changes: object) -> dict[str, object]:
    """The config of the demo with a log on which a model trains in seconds.

    `changes` are `section__key=value`, or `section=value` for a whole section.
    """
    raw = yaml.safe_load((REPO / "configs" / "demo.yaml").read_text())
    raw["name"] = "small"
    raw["data"]["source"] |= {"users": 2000, "items": 600, "clicks": 40000}
    raw["train"] = {
        "epochs": 2,
        "batch_size": 512,
        "negatives": 128,
        "device": "cpu",
        "patience": 100,
        "checkpoint_every_s": 0.5,
    }
    raw["evaluation"] = {"bootstrap": 20}
    raw["gate"] = {"floor": 0.0, "min_index_ratio": 0.0, "champion_tolerance": 1.0}
    for path, value in changes.items():
        section, _, key = path.partition("__")
        raw[section] = raw.get(section, {}) | {key: value} if key else value
    return raw


# The days (UTC) of the log of `daily`: DAYS land one by one, EARLIER are backfilled.
DAYS = [f"2024-03-0{day}" for day in range(1, 10)]
EARLIER = ["2024-02-28", "2024-02-29"]


def daily_config(log: Path, name: str = "daily") -> dict[str, object]:
    """A config whose log arrives day by day. Writes the log's file into the new folder `log`."""
    size = {"users": 1000, "items": 400, "clicks": 36000, "days": len(EARLIER) + len(DAYS)}
    log.mkdir()
    with duckdb.connect() as connection:
        source = Synthetic(**size, start=date.fromisoformat(EARLIER[0]))
        clicks = source.read(connection).interactions
        clicks.write_csv(str(log / "clicks.csv"), header=True)
    source = {"kind": "delimited", "path": str(log), "interactions": {"files": "*.csv"}}
    features = {"columns": {"context": [{"column": "device", "kind": "categorical"}]}}
    return small_config(
        name=name,
        data={"source": source, "timezone": "UTC"},
        features=features,
        train__epochs=1,
        evaluation={"bootstrap": 20, "baselines": ["hot"]},
    )


POSTGRES_PASSWORD = "hunter2-of-the-log"


@contextmanager
def running_redis(folder: Path, port: int, *options: str) -> Iterator[subprocess.Popen[bytes]]:
    """A Redis server, killed at the end. Skips the test if Redis is not installed.

    Without options it keeps nothing on the disk.
    """
    if not (program := shutil.which("redis-server")):
        pytest.skip("no redis-server is installed")
    import redis

    command = [
        *(program, "--bind", "127.0.0.1", "--port", str(port)),
        *("--save", "", "--dir", str(folder), *options),
    ]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    try:
        wait_until(
            lambda: answers(redis.Redis(port=port).ping, redis.ConnectionError), "Redis answers"
        )
        yield process
    finally:
        process.kill()
        process.wait()


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a Redis server."""
    from local.processes import free_port

    port = free_port(0)
    with running_redis(tmp_path_factory.mktemp("redis"), port):
        yield f"redis://127.0.0.1:{port}/0"


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    """The address of a PostgreSQL server with a password. It runs as the user postgres if the tests
    run as root, as whom it does not start.
    """
    from local.processes import free_port

    programs = [shutil.which("initdb"), *sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))]
    if not (initdb := programs[-1]):
        pytest.skip("PostgreSQL is not installed")
    user = "postgres" if os.getuid() == 0 else None
    port = free_port(0)
    with tempfile.TemporaryDirectory(prefix="dssm-postgres-") as name:
        folder = Path(name)
        (folder / "password").write_text(POSTGRES_PASSWORD)
        if user:
            folder.chmod(0o755)
            shutil.chown(folder, user)
        options = {"user": user, "cwd": folder, "stdout": subprocess.DEVNULL}
        data = str(folder / "data")
        account = ("-U", "dssm", "--auth=scram-sha-256", f"--pwfile={folder / 'password'}")
        subprocess.run([initdb, "-D", data, "-N", *account], check=True, **options)
        command = (Path(initdb).with_name("postgres"), "-D", data, "-p", str(port))
        settings = ("-c", "unix_socket_directories=", "-c", "fsync=off")
        process = subprocess.Popen([*command, *settings], stderr=subprocess.DEVNULL, **options)
        ready = [Path(initdb).with_name("pg_isready"), "-q", "-h", "127.0.0.1", "-p", str(port)]
        try:
            wait_until(lambda: subprocess.run(ready).returncode == 0, "PostgreSQL answers")
            yield f"postgresql://dssm:{POSTGRES_PASSWORD}@127.0.0.1:{port}/postgres"
        finally:
            process.send_signal(signal.SIGINT)  # a fast shutdown
            process.wait()


@contextmanager
def served_model(model: str, folder: Path, env: Mapping[str, str]) -> Iterator[str]:
    """The address of `mlflow models serve`, started as docs/serving.md says. It ends with all its
    processes.
    """
    from local import processes

    port = processes.free_port(0)
    # As in an activated environment: MLflow starts uvicorn by name.
    path = os.pathsep.join([str(Path(sys.executable).parent), env["PATH"]])
    command = f"mlflow models serve -m {model} --env-manager local -h 127.0.0.1 -p {port}"
    processes.start(folder, "serve", command.split(), {**env, "PATH": path})
    try:
        with httpx.Client(
            base_url=f"http://127.0.0.1:{port}", timeout=60, trust_env=False
        ) as client:
            ready = partial(answers, partial(client.get, "ping"), httpx.HTTPError)
            wait_until(
                lambda: processes.leader(folder, "serve") is None or ready(), "the model is served"
            )
        assert processes.leader(folder, "serve"), processes.tail(folder, "serve")
        yield f"http://127.0.0.1:{port}/invocations"
    finally:
        assert processes.stop(folder) == []


def answers(call: Callable[[], Any], away: type[Exception]) -> bool:
    """Whether a call succeeds. `away` is the exception that it raises while the server is away."""
    try:
        call()
    except away:
        return False
    return True


SHORT_WAITS = {
    "AIRFLOW__DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL": "3600",  # the Dag files do not change
    "AIRFLOW__DAG_PROCESSOR__REFRESH_INTERVAL": "3600",
    "AIRFLOW__SCHEDULER__SCHEDULER_IDLE_SLEEP_TIME": "0.3",
}


# Airflow's cluster policy of the test servers: a lost task starts again at once.
POLICY = """
from datetime import timedelta


def task_policy(task):
    task.retry_delay = timedelta(seconds=1)
"""


@contextmanager
def running_site(
    root: Path, config: str, configs: dict[str, dict[str, object]], **env: str
) -> Iterator[Any]:
    """MLflow and Airflow servers in the folder `root`, ended with all their processes.

    Scheduled runs use the config of this name. `env` adds to the environment of the servers. The
    configs do not change while the servers run, so the Dag files are parsed once.
    """
    from local import servers

    (root / "configs").mkdir()
    for name, raw in configs.items():
        (root / "configs" / f"{name}.yaml").write_text(yaml.safe_dump(raw))
    policy = root / "state" / "airflow" / "config" / "airflow_local_settings.py"
    policy.parent.mkdir(parents=True)
    policy.write_text(POLICY)
    folders = {
        "DSSM_CONFIGS": "configs",
        "DSSM_RUNS": "runs",
        "DSSM_DAYS": "days",
        "DSSM_PUBLISH": "published",
    }
    env |= {name: str(root / folder) for name, folder in folders.items()}
    env |= {"DSSM_CONFIG": config} | SHORT_WAITS
    try:
        yield servers.up(root / "state", env)
    finally:
        servers.down(root / "state")


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[object]:
    """The servers that all tests share except those that kill servers."""
    root = tmp_path_factory.mktemp("site")
    # Each has a registered model of its own.
    configs = {name: small_config(name=name) for name in ("small", "swept", "killed")}
    configs |= {
        "daily": daily_config(root / "log"),
        "served": daily_config(root / "log-served", "served"),
    }
    # No day of the synthetic log has a billion clicks, so the rule of the volume fails.
    configs["broken"] = small_config(validation={"min_rows_per_day": 10**9}, name="broken")
    # Backfills need a schedule. The run that it starts for yesterday finds no such day in the log.
    schedule = "0 4 * * *"
    with running_site(
        root, "daily", configs, DSSM_SCHEDULE=schedule, DSSM_DATA_ROOTS=str(root)
    ) as servers:
        yield servers
