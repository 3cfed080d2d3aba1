"""MLflow and Airflow in the background of one machine: up, status, down, and shell, which opens a
shell whose commands use these servers.

All their state is in one folder (`.local/`): databases, artifacts, logs, the login. They listen on
127.0.0.1 only.
"""

from __future__ import annotations

import argparse
import json
import os
import secrets
import subprocess
import sys
from base64 import urlsafe_b64encode
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from rich.console import Console
from tenacity import RetryError

from local import processes
from local.airflow_api import Airflow
from local.waiting import wait_for

REPO = Path(__file__).resolve().parent.parent
STATE = REPO / ".local"
AIRFLOW_PARTS = ("api-server", "execution-api", "scheduler", "dag-processor", "triggerer")
PORTS = (
    ("mlflow_port", 5000, "mlflow"),
    ("airflow_port", 8080, "api-server"),
    ("execution_port", 8081, "execution-api"),
)
START_S = 240  # the first start on a slow machine takes less
console = Console(stderr=True)


class ServerError(Exception):
    """A server does not start; the message holds the end of its log."""


@dataclass(frozen=True)
class Site:
    """The state folder of the servers, their ports and their secrets."""

    state: Path
    settings: dict[str, Any]

    @property
    def airflow_url(self) -> str:
        """Airflow's address."""
        return f"http://127.0.0.1:{self.settings['airflow_port']}"

    @property
    def mlflow_url(self) -> str:
        """MLflow's address."""
        return f"http://127.0.0.1:{self.settings['mlflow_port']}"

    def airflow(self) -> Airflow:
        """A logged-in client of Airflow."""
        return Airflow(self.airflow_url, "admin", self.settings["password"])

    @property
    def login(self) -> str:
        """The user and password of Airflow's login page, as a sentence."""
        return f"user admin, password {self.settings['password']}"


def open_site(state: Path = STATE) -> Site:
    """The site in a folder. Ports and secrets are chosen once; a port is chosen again if another
    program has taken it.
    """
    state = state.resolve()
    state.mkdir(parents=True, exist_ok=True, mode=0o700)
    file = state / "site"
    settings = json.loads(file.read_bytes()) if file.is_file() else _secrets()
    for name, preferred, part in PORTS:
        if processes.leader(state, part) is None:
            settings[name] = processes.free_port(settings.get(name, preferred))
    _write_private(file, settings)
    _write_private(state / "passwords", {"admin": settings["password"]})
    return Site(state, settings)


def up(state: Path = STATE, extra_env: dict[str, str] | None = None) -> Site:
    """Start the servers that do not run, and wait until all of them answer."""
    site = open_site(state)
    env = environment(site) | (extra_env or {})
    _start(site, "mlflow", mlflow_command(site), own(env, "mlflow"))
    _migrate(site, env)
    for part in AIRFLOW_PARTS:
        command = [sys.executable, "-m", *_arguments(site, part)]
        _start(site, part, command, own(env, part))
    _wait(site, "MLflow", ("mlflow",), lambda: _get(f"{site.mlflow_url}/health").text == "OK")
    _wait(site, "Airflow", AIRFLOW_PARTS, lambda: healthy(site))
    _make_pool(site.airflow())
    return site


def check_settings(site: Site) -> None:
    """ServerError if the servers already run with other DSSM_… variables than this process has."""
    scheduler = processes.leader(site.state, "scheduler")
    if scheduler is None:
        return
    theirs = scheduler.environ()
    ours = environment(site)
    names = {name for name in {*theirs, *ours} if name.startswith("DSSM_")}
    if different := sorted(name for name in names if theirs.get(name) != ours.get(name)):
        raise ServerError(
            f"the servers already run with another {', '.join(different)}: "
            "`make down`, then `make up` again"
        )


def shell(site: Site) -> None:
    """Replace this process by a shell whose `dssm`, `airflow` and `mlflow` use this site."""
    program = os.environ.get("SHELL", "/bin/sh")
    path = f"{Path(sys.executable).parent}:{os.environ.get('PATH', '')}"
    os.execve(program, [program], environment(site) | {"PATH": path})


def down(state: Path = STATE) -> None:
    """Stop the servers and all processes that they started."""
    if alive := processes.stop(state):
        pids = ", ".join(str(process.pid) for process in alive)
        raise ServerError(f"these processes do not end: {pids}; end them with `kill -9`")


def healthy(site: Site) -> bool:
    """Whether all parts of Airflow report that they are healthy."""
    health = _get(f"{site.airflow_url}/api/v2/monitor/health").json()
    return all(
        health[part]["status"] == "healthy"
        for part in ("metadatabase", "scheduler", "triggerer", "dag_processor")
    )


def mlflow_command(site: Site) -> list[str]:
    """The command of the MLflow server: metadata in SQLite, artifacts served over HTTP, so that
    clients need no access to its disk.
    """
    database = site.state / "mlflow.db"
    artifacts = site.state / "mlflow-artifacts"
    return [
        *(
            sys.executable,
            "-m",
            "mlflow",
            "server",
            "--host",
            "127.0.0.1",
            "--port",
            str(site.settings["mlflow_port"]),
        ),
        *(
            "--backend-store-uri",
            f"sqlite:///{database}",
            "--artifacts-destination",
            str(artifacts),
        ),
        *("--workers", "1", "--allowed-hosts", "127.0.0.1:*,localhost:*"),
    ]


def environment(site: Site) -> dict[str, str]:
    """The environment variables of every server and task."""
    home = site.state / "airflow"
    execution_api = f"http://127.0.0.1:{site.settings['execution_port']}/execution/"
    simple = "airflow.api_fastapi.auth.managers.simple"
    return {
        **{
            key: value
            for key, value in os.environ.items()
            if not key.startswith(("AIRFLOW_", "MLFLOW_", "_AIRFLOW_"))
        },
        "NO_PROXY": "127.0.0.1,localhost",
        "no_proxy": "127.0.0.1,localhost",
        "PYTHONPATH": str(REPO),
        "MLFLOW_TRACKING_URI": site.mlflow_url,
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "DSSM_RUNS": os.environ.get("DSSM_RUNS", str(REPO / "runs")),
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__CORE__DAGS_FOLDER": str(REPO / "dags"),
        "AIRFLOW__CORE__PLUGINS_FOLDER": str(REPO / "plugins"),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "false",
        "AIRFLOW__CORE__EXECUTOR": "LocalExecutor",
        "AIRFLOW__CORE__PARALLELISM": "4",
        "AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION": "false",
        "AIRFLOW__CORE__FERNET_KEY": site.settings["fernet_key"],
        "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": execution_api,
        "AIRFLOW__CORE__AUTH_MANAGER": f"{simple}.simple_auth_manager.SimpleAuthManager",
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS": "admin:admin",
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": str(site.state / "passwords"),
        "AIRFLOW__API__SECRET_KEY": site.settings["secret_key"],
        "AIRFLOW__API__BASE_URL": site.airflow_url,
        "AIRFLOW__API_AUTH__JWT_SECRET": site.settings["jwt_secret"],
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{home / 'airflow.db'}",
        "AIRFLOW__DAG_PROCESSOR__REFRESH_INTERVAL": "10",
        "AIRFLOW__DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL": "10",
        "AIRFLOW__LOGGING__BASE_LOG_FOLDER": str(home / "logs"),
        # Operators log what each task returns, which is an XCom.
        "AIRFLOW__LOGGING__NAMESPACE_LEVELS": "airflow.task.operators=WARNING",
        "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": "60",
        "AIRFLOW__USAGE_DATA_COLLECTION__ENABLED": "false",
    }


def own(env: dict[str, str], part: str) -> dict[str, str]:
    """The environment of one server: MLflow gets no secret of Airflow, and only the scheduler,
    which runs the tasks, the address to publish to, which may hold a password.
    """
    others = () if part == "scheduler" else ("DSSM_PUBLISH",)
    others += ("AIRFLOW_",) if part == "mlflow" else ()
    return {name: value for name, value in env.items() if not name.startswith(others)}


def _arguments(site: Site, part: str) -> list[str]:
    """The module that a part runs, and its arguments.

    People and tasks use one API server each. In one process their requests could wait for each
    other until one fails: a person's request writes to the audit log inside the event loop, and
    a task's request holds the lock of SQLite until the event loop finishes it. The scheduler and
    the triggerer serve no logs: the API server reads them from this disk, and a log server would
    listen on every interface.
    """
    arguments = {
        "api-server": _api_server("core", site.settings["airflow_port"]),
        "execution-api": _api_server("execution", site.settings["execution_port"]),
        "scheduler": ["local.scheduler", "--skip-serve-logs"],
        "dag-processor": ["airflow", "dag-processor"],
        "triggerer": ["airflow", "triggerer", "--skip-serve-logs"],
    }
    return arguments[part]


def _api_server(apps: str, port: int) -> list[str]:
    return [
        *("airflow", "api-server", "--apps", apps),
        *("--host", "127.0.0.1", "--port", str(port), "--workers", "1"),
    ]


def _secrets() -> dict[str, str]:
    return {
        "password": secrets.token_urlsafe(12),
        "secret_key": secrets.token_urlsafe(32),
        "jwt_secret": secrets.token_urlsafe(48),
        "fernet_key": urlsafe_b64encode(secrets.token_bytes(32)).decode(),
    }


def _write_private(file: Path, content: dict[str, Any]) -> None:
    with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as stream:
        json.dump(content, stream)


def _start(site: Site, name: str, command: list[str], env: dict[str, str]) -> None:
    if processes.leader(site.state, name) is None:
        processes.start(site.state, name, command, env)


def _migrate(site: Site, env: dict[str, str]) -> None:
    """Migrate the database to the installed version of Airflow, once for each constraints.txt."""
    mark = site.state / "migrated"
    constraints = (REPO / "constraints.txt").read_text()
    if mark.is_file() and mark.read_text() == constraints:
        return
    with console.status("Airflow: migrating its database"):
        done = subprocess.run(
            [sys.executable, "-m", "airflow", "db", "migrate"],
            env=env,
            capture_output=True,
            text=True,
        )
    if done.returncode:
        raise ServerError(f"airflow db migrate failed:\n{(done.stdout + done.stderr)[-3000:]}")
    mark.write_text(constraints)


def _get(url: str) -> httpx.Response:
    return httpx.get(url, timeout=10, trust_env=False)


def _wait(site: Site, title: str, parts: tuple[str, ...], ready: Callable[[], bool]) -> None:
    """Wait until the parts answer. ServerError if one of them ends, or if it takes too long."""

    def answers() -> bool:
        if _try(ready):
            return True
        for part in parts:
            if processes.leader(site.state, part) is None:
                raise _fault(site, part, "has ended")
        return False

    with console.status("") as status:

        def show_seconds(seconds: float) -> None:
            status.update(f"{title}: waiting for {', '.join(parts)} to answer ({seconds:.0f} s)")

        try:
            wait_for(answers, every_s=0.5, at_most_s=START_S, waiting=show_seconds)
        except RetryError:
            raise _fault(site, parts[0], f"does not answer after {START_S} s") from None


def _fault(site: Site, part: str, problem: str) -> ServerError:
    log = processes.tail(site.state, part)
    return ServerError(f"{part} {problem}. The end of {site.state / part}.log:\n{log}")


def _try(ready: Callable[[], bool]) -> bool:
    try:
        return ready()
    except (httpx.HTTPError, KeyError, ValueError):
        return False


def _make_pool(airflow: Airflow) -> None:
    """Create the pool `gpu` with one slot, so that two trainings never share a device."""
    pool = {
        "name": "gpu",
        "slots": 1,
        "description": "one training at a time",
        "include_deferred": False,
    }
    if "gpu" not in {existing["name"] for existing in airflow.get("pools")["pools"]}:
        airflow.call("POST", "pools", json=pool)


def show(site: Site) -> None:
    """Print the servers that run, their addresses and the login."""
    for part in ("mlflow", *AIRFLOW_PARTS):
        process = processes.leader(site.state, part)
        console.print(f"  {part:14} {f'process {process.pid}' if process else 'not running'}")
    console.print(f"  MLflow   {site.mlflow_url}\n  Airflow  {site.airflow_url}   {site.login}")


def main() -> None:
    """The command line: up, status, down, shell."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("command", choices=["up", "status", "down", "shell"])
    parser.add_argument(
        "--state", type=Path, default=STATE, help="folder of all the servers' state"
    )
    args = parser.parse_args()
    try:
        if args.command == "down":
            down(args.state)
        elif args.command == "up":
            check_settings(open_site(args.state))
            show(up(args.state))
        elif not (args.state / "site").is_file():
            console.print("nothing was started yet: start the servers with `make up`")
        else:
            site = Site(args.state.resolve(), json.loads((args.state / "site").read_bytes()))
            (shell if args.command == "shell" else show)(site)
    except (ServerError, RuntimeError) as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
