"""The calls of Airflow's REST API that the demo and the tests make."""

from __future__ import annotations

import time
from typing import Any

import httpx
from tenacity import retry, retry_if_exception_type, stop_after_attempt, wait_fixed

DONE = ("success", "failed")
WAITS = ("awaiting_input", "deferred")  # states of a task that waits for a person


class ServerFault(RuntimeError):
    """Airflow's server failed; the call itself was correct."""


class Airflow:
    """A logged-in client. It uses no proxy, because the server runs on this machine."""

    def __init__(self, url: str, user: str, password: str) -> None:
        self.url = url
        self._http = httpx.Client(base_url=url, timeout=60, trust_env=False)
        answer = self._http.post("/auth/token", json={"username": user, "password": password})
        answer.raise_for_status()
        self._http.headers["Authorization"] = f"Bearer {answer.json()['access_token']}"

    @retry(
        retry=retry_if_exception_type(ServerFault),
        stop=stop_after_attempt(5),
        wait=wait_fixed(1),
        reraise=True,
    )
    def call(self, method: str, path: str, **request: Any) -> Any:
        """Make a call below /api/v2 and return its JSON, None if the answer is empty.

        RuntimeError with the server's message if it refuses the call. ServerFault if the server
        fails five times: a single failure means that its SQLite was locked by a task's call, and
        that nothing was written.
        """
        answer = self._http.request(method, f"/api/v2/{path}", **request)
        if answer.is_error:
            fault = ServerFault if answer.is_server_error else RuntimeError
            message = f"{answer.status_code} to {method} {path}: {answer.text[:2000]}"
            raise fault(f"Airflow answers {message}")
        return answer.json() if answer.content else None

    def get(self, path: str, **params: Any) -> Any:
        """GET a path below /api/v2; returns its JSON."""
        return self.call("GET", path, params=params)

    def offers(self, dag_id: str, config: str) -> bool:
        """Whether the Dag is parsed and its form offers this config."""
        if dag_id not in {dag["dag_id"] for dag in self.get("dags")["dags"]}:
            return False
        params = self.get(f"dags/{dag_id}/details")["params"]
        return config in params["config"]["schema"]["enum"]

    def trigger(self, dag_id: str, conf: dict[str, Any]) -> str:
        """Start a run and return its id."""
        run = self.call("POST", f"dags/{dag_id}/dagRuns", json={"logical_date": None, "conf": conf})
        return str(run["dag_run_id"])

    def started(self, dag_id: str, run_id: str) -> bool:
        """Whether a run with this id exists, such as one that another run starts."""
        runs = self.get(f"dags/{dag_id}/dagRuns", limit=100)["dag_runs"]
        return run_id in {run["dag_run_id"] for run in runs}

    def wait(self, dag_id: str, run_id: str, timeout_s: float) -> str:
        """Wait until the run has ended, and return its state; TimeoutError after `timeout_s`.

        Airflow sends the state as a line a second, and closes the stream when the run has ended.
        """
        deadline = time.monotonic() + timeout_s
        path = f"/api/v2/dags/{dag_id}/dagRuns/{run_id}/wait"
        with self._http.stream("GET", path, params={"interval": 1}) as answer:
            answer.raise_for_status()
            for _ in answer.iter_lines():
                if time.monotonic() > deadline:
                    raise TimeoutError(f"{dag_id} {run_id} has not ended after {timeout_s} s")
        return self.state(dag_id, run_id)

    def state(self, dag_id: str, run_id: str) -> str:
        """The state of a run."""
        return str(self.get(f"dags/{dag_id}/dagRuns/{run_id}")["state"])

    def tasks(self, dag_id: str, run_id: str) -> dict[str, dict[str, Any]]:
        """The task instances of a run by task id."""
        tasks = self.get(f"dags/{dag_id}/dagRuns/{run_id}/taskInstances")["task_instances"]
        return {task["task_id"]: task for task in tasks}

    def settled(self, dag_id: str, run_id: str) -> bool:
        """Whether a run has ended or waits for its review."""
        review = self.tasks(dag_id, run_id).get("review", {})
        return self.state(dag_id, run_id) in DONE or review.get("state") in WAITS

    def answer(
        self, dag_id: str, run_id: str, option: str, reason: str = "", task_id: str = "review"
    ) -> None:
        """Answer a review, as its page does."""
        path = f"dags/{dag_id}/dagRuns/{run_id}/taskInstances/{task_id}/-1/hitlDetails"
        self.call(
            "PATCH", path, json={"chosen_options": [option], "params_input": {"reason": reason}}
        )

    def xcom(self, dag_id: str, run_id: str, task_id: str, key: str = "return_value") -> Any:
        """The value that a task pushed, None if it pushed none."""
        try:
            return self.get(
                f"dags/{dag_id}/dagRuns/{run_id}/taskInstances/{task_id}/xcomEntries/{key}"
            )["value"]
        except RuntimeError:
            return None

    def log_text(self, dag_id: str, run_id: str, task_id: str, attempt: int) -> str:
        """The log of a task: a line for each event, errors with their type and message."""
        lines = self.log_lines(dag_id, run_id, task_id, attempt)
        return "\n".join(_line(line) for line in lines)

    def log_lines(self, dag_id: str, run_id: str, task_id: str, attempt: int) -> list[Any]:
        """The lines of a task's log, most of them a dict with `event`, `level` and `logger`."""
        path = f"dags/{dag_id}/dagRuns/{run_id}/taskInstances/{task_id}/logs/{attempt}"
        lines: list[Any] = self.get(path, full_content=True)["content"]
        return lines


def _line(line: Any) -> str:
    if not isinstance(line, dict):
        return str(line)
    errors = [
        f"{error['exc_type']}: {error['exc_value']}" for error in line.get("error_detail") or []
    ]
    return "\n".join([line.get("event", ""), *errors])
