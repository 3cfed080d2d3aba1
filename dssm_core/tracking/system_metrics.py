"""Use of CPU, memory, disk, network and GPU in an MLflow run, measured by MLflow's own monitor."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

ENDING_S = 5.0  # what a server that does not answer may delay the end


@contextmanager
def system_metrics(run_id: str, uri: str) -> Iterator[None]:
    """Log the use of the machine to an MLflow run, as metrics `system/...`, every ten seconds. No
    error of MLflow ends the block.
    """
    from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

    monitor = SystemMetricsMonitor(run_id, resume_logging=True, tracking_uri=uri)
    monitor.start()
    try:
        yield
    finally:
        ending = threading.Thread(target=monitor.finish, daemon=True)
        ending.start()
        ending.join(ENDING_S)
