"""What the Dags' forms and tasks share."""

from __future__ import annotations

import os
from datetime import timedelta
from typing import Any

from airflow.sdk import ExceptionRetryPolicy, Param, RetryAction, RetryRule

from dssm_core.errors import ConfigError, ConflictError, DataError
from tasks.settings import config_files

TASK_DEFAULTS: dict[str, Any] = {
    "retries": 2,
    "retry_delay": timedelta(seconds=10),
    "retry_exponential_backoff": 2.0,
    "max_retry_delay": timedelta(minutes=5),
    "execution_timeout": timedelta(hours=1),
    # Only what cannot get better by itself: a killed worker, a full disk or a server away are retried.
    "retry_policy": ExceptionRetryPolicy(
        rules=[
            RetryRule(
                exception=[ConfigError, ConflictError, DataError], action=RetryAction.FAIL, reason="the same data and settings fail again"
            )
        ]
    ),
}


def config_param() -> Param:
    """The config files of $DSSM_CONFIGS; $DSSM_CONFIG is the default, which a scheduled run takes."""
    configs = list(config_files()) or ["demo"]
    default = next((name for name in (os.environ.get("DSSM_CONFIG"), "demo") if name in configs), configs[0])
    return Param(default, type="string", enum=configs, title="Config", section="Run", description_md="A YAML file in `configs/`.")


def data_param() -> Param:
    """Where the log lies, if not where the config says; $DSSM_DATA_PATH is the default."""
    return Param(
        os.environ.get("DSSM_DATA_PATH") or None,
        type=["null", "string"],
        maxLength=1000,
        title="Data",
        section="Run",
        description_md="Absolute path of the log, instead of the config's. The workers must see it.",
    )
