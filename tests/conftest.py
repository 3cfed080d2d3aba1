"""What tests of several folders share: real click logs, real servers, a browser."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
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
from local.airflow_api import DONE, WAITS

REPO = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def data_root() -> Path:
    """The folder of real click logs, $DSSM_DATA."""
    if "DSSM_DATA" not in os.environ:
        pytest.skip("DSSM_DATA names no folder of real click logs")
    return Path(os.environ["DSSM_DATA"])


@pytest.fixture(scope="session")
def chromium() -> str:
    """A Chromium to drive."""
    found = next(
        filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
    )
    if found is None:
        pytest.skip("no chromium is installed")
    return found


PATIENCE_S = 600


def wait_until(ready: Callable[[], Any], what: str) -> Any:
    """Ask again and again until the answer is true, and return it."""
    deadline = time.monotonic() + PATIENCE_S
    while not (found := ready()):
        assert time.monotonic() < deadline, f"waited {PATIENCE_S} s in vain until {what}"
        time.sleep(0.25)
    return found


ANSWER_AFTER_S = (
    3  # Airflow must have seen the asking process end, else it takes it for lost and asks again
)
TRAINING = "dssm_training"


def complete(
    airflow: Any,
    run_id: str,
    option: str = "Keep as challenger",
    reason: str = "a test",
    dag: str = TRAINING,
) -> str:
    """Wait for a run, answer its review as the review's page would each time that it asks, and
    return the run's last state.
    """
    answered = 0

    def over() -> bool:
        nonlocal answered
        review = airflow.tasks(dag, run_id).get("review", {})
        if review.get("state") in WAITS and review["try_number"] > answered:
            time.sleep(ANSWER_AFTER_S)
            airflow.answer(dag, run_id, option, reason)
            answered = review["try_number"]
        return airflow.state(dag, run_id) in DONE

    wait_until(over, f"{run_id} ends")
    return str(airflow.state(dag, run_id))


def small_config(**changes: object) -> dict[str, object]:
    """The demo's config on a log that trains in seconds; changes are `section__key=value`."""
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


DAYS = [
    f"2024-03-0{day}" for day in range(1, 10)
]  # of the log that `daily` lands one by one, in UTC
EARLIER = ["2024-02-28", "2024-02-29"]  # which it has too, and which are backfilled


def daily_config(log: Path, name: str = "daily") -> dict[str, object]:
    """A log of files that arrive, a day at a time."""
    changes = {"users": 1000, "items": 400, "clicks": 36000, "days": len(EARLIER) + len(DAYS)}
    clicks = (
        Synthetic(**changes, start=date.fromisoformat(EARLIER[0]))
        .read(con := duckdb.connect())
        .interactions
    )
    log.mkdir()
    clicks.write_csv(str(log / "clicks.csv"), header=True)
    con.close()
    source = {"kind": "delimited", "path": str(log), "interactions": {"files": "*.csv"}}
    features = {"columns": {"context": [{"column": "device", "kind": "categorical"}]}}
    return small_config(
        name=name,
        data={"source": source, "timezone": "UTC"},
        features=features,
        train__epochs=1,
        evaluation={"bootstrap": 20, "baselines": ["hot"]},
    )


@contextmanager
def running_redis(folder: Path, port: int, *options: str) -> Iterator[subprocess.Popen[bytes]]:
    """A real Redis of its own, killed in the end; with no options it keeps nothing on disk. Skips
    where none is installed.
    """
    if not (program := shutil.which("redis-server")):
        pytest.skip("no redis-server is installed")
    import redis

    command = [
        program,
        "--port",
        str(port),
        "--bind",
        "127.0.0.1",
        "--save",
        "",
        "--dir",
        str(folder),
        *options,
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
    """The address of a real Redis."""
    from local.processes import free_port

    port = free_port(6379)
    with running_redis(tmp_path_factory.mktemp("redis"), port):
        yield f"redis://127.0.0.1:{port}/0"


@contextmanager
def served_model(model: str, folder: Path, env: Mapping[str, str]) -> Iterator[str]:
    """The address of a real `mlflow models serve`, started as docs/serving.md says; ended with its
    processes afterwards.
    """
    from local import processes

    port = processes.free_port(0)
    path = os.pathsep.join(
        [str(Path(sys.executable).parent), env["PATH"]]
    )  # as in an activated environment: MLflow starts uvicorn by name
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
    """Whether a call comes back without the exception that says that a server is away."""
    try:
        call()
    except away:
        return False
    return True


@contextmanager
def running_site(
    root: Path, config: str, configs: dict[str, dict[str, object]], **env: str
) -> Iterator[Any]:
    """MLflow and Airflow, really running on the config of this name, in a folder of their own;
    ended with all their processes.
    """
    from local import servers

    (root / "configs").mkdir()
    for name, raw in configs.items():
        (root / "configs" / f"{name}.yaml").write_text(yaml.safe_dump(raw))
    folders = {
        "DSSM_CONFIGS": "configs",
        "DSSM_RUNS": "runs",
        "DSSM_DAYS": "days",
        "DSSM_PUBLISH": "published",
    }
    env |= {name: str(root / folder) for name, folder in folders.items()} | {"DSSM_CONFIG": config}
    try:
        yield servers.up(root / "state", env)
    finally:
        servers.down(root / "state")


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[object]:
    """The servers that most tests share."""
    root = tmp_path_factory.mktemp("site")
    configs = {
        name: small_config(name=name) for name in ("small", "swept", "killed")
    }  # models that tests have for themselves
    configs |= {
        "daily": daily_config(root / "log"),
        "served": daily_config(root / "log-served", "served"),
    }
    # No synthetic day has a billion clicks: a log that breaks the volume rule.
    configs["broken"] = small_config(validation={"min_rows_per_day": 10**9}, name="broken")
    # The run that the schedule starts for yesterday finds no such day in the log; backfills need a
    # schedule.
    with running_site(
        root, "daily", configs, DSSM_SCHEDULE="0 4 * * *", DSSM_DATA_ROOTS=str(root)
    ) as made:
        yield made
