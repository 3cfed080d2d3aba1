"""Numbers in an MLflow run: each point is logged once, even if a step or a training is repeated.

A metric's name has no `@` in MLflow, and its pages group metrics by the part before a slash:
served.recall@200 is logged as `served/recall_at_200`.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from dssm_core.aliases import JSON
from dssm_core.runs.run import Run
from dssm_core.tracking.client import connect, log_metrics_once, mlflow_errors, tracking_uri
from dssm_core.tracking.runs import open_mlflow_run
from dssm_core.tracking.system_metrics import system_metrics

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Metric

log = logging.getLogger(__name__)
Point = tuple[int, Mapping[str, Any]]  # a step and its values

LIVE_TIMEOUT_S = 3
PAUSE_S = 30.0  # after a failed live point, until the next attempt
METRICS_PER_REQUEST = 1000


@contextmanager
def live_logger(run: Run) -> Iterator[Callable[[Mapping[str, float], int], None]]:
    """A function that logs (metrics, step) during training; meanwhile the use of the machine is
    logged too.

    If MLflow stops answering, it logs one warning and training continues; the step log_to_mlflow
    adds the missing points. ServiceError if MLflow does not answer now.
    """
    run_id = open_mlflow_run(run).run_id
    client = connect(run.runs)
    with mlflow_errors(tracking_uri(run.runs)):
        # An attempt that was killed may have logged points after its last checkpoint.
        logged = _logged_points(client, run_id, client.get_run(run_id).data.metrics)
    down_until = 0.0

    def write(metrics: Mapping[str, float], step: int) -> None:
        nonlocal down_until
        if time.monotonic() < down_until:
            return
        try:
            points = _missing([(step, metrics)], logged)
            log_metrics_once(client, run_id, _metrics(points), LIVE_TIMEOUT_S)
            down_until = 0.0
        except Exception as error:  # no error of MLflow may stop a training
            if down_until == 0.0:
                log.warning(
                    "MLflow does not answer (%s): training continues, "
                    "and the missing points are logged afterwards",
                    str(error)[:200],
                )
            down_until = time.monotonic() + PAUSE_S

    with system_metrics(run_id, tracking_uri(run.runs)):
        yield write


def metric_name(key: str) -> str:
    """The name of a metric in MLflow: served.recall@200 gives `served/recall_at_200`."""
    return key.replace("@", "_at_").replace(".", "/")


def log_history(client: MlflowClient, run_id: str, history: Sequence[JSON]) -> None:
    """Log the points of a history that MLflow does not have yet. Each has `step` and its values."""
    names = {metric_name(key) for point in history for key in point} - {"step"}
    points = [
        (point["step"], {key: value for key, value in point.items() if key != "step"})
        for point in history
    ]
    _log_points(client, run_id, _missing(points, _logged_points(client, run_id, names)))


def log_numbers(client: MlflowClient, run_id: str, values: Mapping[str, Any]) -> None:
    """Log numbers without a step, except those that MLflow already shows."""
    shown = {(name, 0, value) for name, value in client.get_run(run_id).data.metrics.items()}
    _log_points(client, run_id, _missing([(0, values)], shown))


def copy_to_model(
    client: MlflowClient, run_id: str, model_id: str, names: Iterable[str], dataset: tuple[str, str]
) -> None:
    """Show the newest points of a run's metrics on its logged model too, with the name and digest
    of the dataset that they were measured on.

    The run keeps one point each: to MLflow, a point of the same value, time and step is the same.
    """
    from mlflow.entities import Metric

    histories = [client.get_metric_history(run_id, name) for name in names]
    newest = [max(points, key=lambda point: point.timestamp) for points in histories]
    metrics = [
        Metric(point.key, point.value, point.timestamp, point.step, model_id, *dataset)
        for point in newest
    ]
    client.log_batch(run_id, metrics=metrics)


def is_number(value: Any) -> bool:
    """Whether MLflow takes a value as a metric: a finite number, not a truth value."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _logged_points(
    client: MlflowClient, run_id: str, names: Iterable[str]
) -> set[tuple[str, int, float]]:
    """(name, step, value) of the points of these metrics in MLflow."""
    return {
        (name, point.step, point.value)
        for name in names
        for point in client.get_metric_history(run_id, name)
    }


def _missing(points: Sequence[Point], logged: set[tuple[str, int, float]]) -> list[Point]:
    """The points with only the numbers that are not logged yet."""

    def missing(step: int, key: str, value: Any) -> bool:
        return is_number(value) and (metric_name(key), step, value) not in logged

    return [
        (step, {key: value for key, value in values.items() if missing(step, key, value)})
        for step, values in points
    ]


def _log_points(client: MlflowClient, run_id: str, points: Sequence[Point]) -> None:
    metrics = _metrics(points)
    for first in range(0, len(metrics), METRICS_PER_REQUEST):
        client.log_batch(run_id, metrics=metrics[first : first + METRICS_PER_REQUEST])


def _metrics(points: Sequence[Point]) -> list[Metric]:
    from mlflow.entities import Metric

    now_ms = int(time.time() * 1000)
    return [
        Metric(metric_name(key), float(value), now_ms, step)
        for step, values in points
        for key, value in values.items()
    ]
