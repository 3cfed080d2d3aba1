"""The connection to MLflow: which server, a client of it, and its errors as ServiceError.

The server is $MLFLOW_TRACKING_URI; without it, `mlflow.db` and `mlartifacts/` in the folder of all
runs are used.
"""

from __future__ import annotations

import logging
import os
import re
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import tenacity

from dssm_core.aliases import JSON
from dssm_core.errors import ConfigError, LostAnswer, ServiceError, masked, shown
from dssm_core.runs.run import Run

if TYPE_CHECKING:
    from mlflow import MlflowClient as MlflowClient
    from mlflow.entities import Metric

T = TypeVar("T")

PROBE_TIMEOUT_S = 5
PROBE_RETRIES = 1
CREATE_TIMEOUT_S = 120
CREATE_ATTEMPTS = 3
SQLITE = "sqlite:///"
ADDRESS = re.compile(r"https?://[^/]|sqlite:///.|(postgresql|mysql|mssql)(\+\w+)?://.|databricks\b")
SERVER_ERROR = 500  # and above: a proxy answers for a server that is down
SETTINGS = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
}
_reached: set[str] = set()  # servers that have answered this process
_environment_lock = threading.RLock()


def tracking_uri(runs: Path) -> str:
    """The MLflow server of this process: $MLFLOW_TRACKING_URI, else a SQLite file in the folder of
    all runs.

    The path of a SQLite file is absolute, so that it is one file for every process. ConfigError if
    the variable is no address of a server or a database.
    """
    address = os.environ.get("MLFLOW_TRACKING_URI")
    if not address:
        return f"{SQLITE}{_in_url(runs.resolve() / 'mlflow.db')}"
    if not ADDRESS.match(address):
        raise ConfigError(
            f"MLFLOW_TRACKING_URI is {shown(address)}: give the address of a server, such as"
            " http://localhost:5000, or of a database, such as sqlite:///mlflow.db"
        )
    file = address.removeprefix(SQLITE)
    if file == address or file.startswith(("/", ":memory:")):
        return address
    return f"{SQLITE}{_in_url(Path.cwd())}/{file}"


def check_address(run: Run) -> None:
    """Raise ConfigError if $MLFLOW_TRACKING_URI is no address of a server or a database."""
    tracking_uri(run.runs)


def _in_url(path: Path) -> str:
    """A path as a part of a SQLite address, which ends at a question mark."""
    return str(path).replace("%", "%25").replace("?", "%3F")


def connect(runs: Path) -> MlflowClient:
    """A client of the server.

    ServiceError within seconds if the server has never answered this process. A server that has
    answered before is assumed to restart: its requests are retried for MLflow's own four minutes.
    """
    for name, value in SETTINGS.items():
        os.environ.setdefault(name, value)
    import mlflow

    logging.getLogger("mlflow").setLevel(logging.WARNING)
    uri = tracking_uri(runs)
    if uri.startswith("sqlite:"):
        runs.mkdir(parents=True, exist_ok=True)
    if uri not in _reached:
        probe(uri)
    client = mlflow.MlflowClient(tracking_uri=uri, registry_uri=uri)
    with mlflow_errors(uri):
        client.search_experiments(max_results=1)
    _reached.add(uri)
    return client


def probe(uri: str) -> None:
    """Ask a server for its health; ServiceError within seconds if it does not answer.

    Any answer except a server error will do: what it means is seen by the first request.
    """
    if not uri.startswith("http"):
        return
    from mlflow.exceptions import MlflowException
    from mlflow.utils.credentials import get_default_host_creds
    from mlflow.utils.rest_utils import http_request

    with mlflow_errors(uri):
        answer = http_request(
            get_default_host_creds(uri),
            "/health",
            "GET",
            max_retries=PROBE_RETRIES,
            timeout=PROBE_TIMEOUT_S,
            raise_on_status=False,
        )
        if answer.status_code >= SERVER_ERROR:
            raise MlflowException("it does not answer")


def log_metrics_once(
    client: MlflowClient, run_id: str, metrics: Sequence[Metric], timeout_s: int
) -> None:
    """Log metrics with one request and no retry, so that the caller waits for `timeout_s` at most.

    Raises whatever MLflow raises. Of MLflow's client methods none takes a timeout.
    """
    uri = client.tracking_uri
    if not uri.startswith("http"):
        client.log_batch(run_id, metrics=metrics)
        return
    from mlflow.utils.credentials import get_default_host_creds
    from mlflow.utils.rest_utils import http_request, verify_rest_response

    endpoint = "/api/2.0/mlflow/runs/log-batch"
    response = http_request(
        get_default_host_creds(uri),
        endpoint,
        "POST",
        max_retries=0,
        timeout=timeout_s,
        json={"run_id": run_id, "metrics": [_plain(metric) for metric in metrics]},
    )
    verify_rest_response(response, endpoint)


def _plain(metric: Metric) -> JSON:
    return {
        "key": metric.key,
        "value": metric.value,
        "timestamp": metric.timestamp,
        "step": metric.step,
    }


def create_once(create: Callable[[], T], find: Callable[[], T | None]) -> T:
    """Create something that must not exist twice, such as a run or a version.

    The answer to a request can get lost. MLflow would send the request again and create a second
    one; here its retries are off, and `find` looks for the first one before each new attempt.
    """
    from mlflow.exceptions import MlflowException

    attempts = tenacity.Retrying(
        retry=tenacity.retry_if_exception_type(MlflowException),
        stop=tenacity.stop_after_attempt(CREATE_ATTEMPTS),
        reraise=True,
    )
    for attempt in attempts:
        with attempt:
            if attempt.retry_state.attempt_number > 1 and (existing := find()) is not None:
                return existing
            with _single_requests():
                return create()
    raise AssertionError("tenacity raises after the last attempt")


@contextmanager
def mlflow_errors(uri: str) -> Iterator[None]:
    """Turn exceptions of MLflow and of the network into a ServiceError that names the server and
    what to do; LostAnswer if the server ended in the middle of an answer.
    """
    from mlflow.exceptions import MlflowException

    try:
        yield
    except (MlflowException, OSError) as error:
        reason = str(error).splitlines()[0][:300] if str(error) else type(error).__name__
        reason = "it does not answer" if "Max retries exceeded" in reason else reason
        advice = (
            "start it, or correct MLFLOW_TRACKING_URI and the server's --allowed-hosts, "
            "then run the step again"
        )
        cause = error if masked(error) == str(error) else None  # a traceback would show the secret
        kind = LostAnswer if _cut_short(error) else ServiceError
        raise kind(f"MLflow at {uri} failed: {reason}; {advice}") from cause


def _cut_short(error: BaseException | None) -> bool:
    """Whether an answer began and did not end: MLflow repeats no request whose answer has begun."""
    from requests.exceptions import ChunkedEncodingError

    return error is not None and (
        isinstance(error, ChunkedEncodingError) or _cut_short(error.__context__)
    )


@contextmanager
def default_server(uri: str) -> Iterator[None]:
    """Make `uri` the server of MLflow's module-level functions inside the block.

    One block at a time: MLflow keeps this setting in the environment of the process, which is
    restored at the end.
    """
    import mlflow

    with _environment({"MLFLOW_TRACKING_URI": uri}):
        mlflow.set_tracking_uri(uri)
        mlflow.set_registry_uri(uri)
        yield


def _single_requests() -> AbstractContextManager[None]:
    """No retries of MLflow's own inside the block; one block at a time."""
    return _environment(
        {
            "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
            "MLFLOW_HTTP_REQUEST_TIMEOUT": str(CREATE_TIMEOUT_S),
        }
    )


@contextmanager
def _environment(variables: Mapping[str, str]) -> Iterator[None]:
    with _environment_lock:
        before = {name: os.environ.get(name) for name in variables}
        os.environ.update(variables)
        try:
            yield
        finally:
            for name, value in before.items():
                os.environ.pop(name, None)
                if value is not None:
                    os.environ[name] = value
