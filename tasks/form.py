"""What the Dags' forms and tasks share."""

from __future__ import annotations

import os
from datetime import timedelta
from typing import Any

from airflow.sdk import ExceptionRetryPolicy, Param, RetryAction, RetryRule

from dssm_core.errors import ConfigError, ConflictError, DataError
from dssm_core.families import LOSSES, SAMPLERS, TOWERS
from tasks.settings import config_files

EMPTY: dict[str, Any] = {"values_display": {"null": "as the config says"}}

TASK_DEFAULTS: dict[str, Any] = {
    "retries": 2,
    "retry_delay": timedelta(seconds=10),
    "retry_exponential_backoff": 2.0,
    "max_retry_delay": timedelta(minutes=5),
    "execution_timeout": timedelta(hours=1),
    # Only what cannot get better by itself: a killed worker, a full disk or a server away are
    # retried.
    "retry_policy": ExceptionRetryPolicy(
        rules=[
            RetryRule(
                exception=[ConfigError, ConflictError, DataError],
                action=RetryAction.FAIL,
                reason="the same data and settings fail again",
            )
        ]
    ),
}


def default_config() -> str:
    """$DSSM_CONFIG, else demo, else the first there is."""
    configs = list(config_files()) or ["demo"]
    return next(
        (name for name in (os.environ.get("DSSM_CONFIG"), "demo") if name in configs), configs[0]
    )


def optional(kind: str, **told: Any) -> Param:
    """A form field that may be left empty."""
    return Param(None, type=["null", kind], **told)


def config_param() -> Param:
    """The config files of $DSSM_CONFIGS; $DSSM_CONFIG is the default, which a scheduled run takes."""
    configs = list(config_files()) or ["demo"]
    return Param(
        default_config(),
        type="string",
        enum=configs,
        title="Config",
        section="Run",
        description_md="A YAML file in `configs/`.",
    )


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


def settings_param() -> Param:
    """Any setting of the config, for those who know its name."""
    return Param(
        [],
        type="array",
        items={"type": "string", "pattern": r"^[a-z_0-9.]+=.+"},
        title="Further settings",
        section="Model",
        description_md="One a line, `key.path=value`, such as `train.learning_rate=0.002`.",
    )


def choice(family: dict[str, str], title: str, text: str) -> Param:
    """A form field that is empty (the config's own) or one member of a family."""
    return optional(
        "string",
        enum=[None, *sorted(family)],
        title=title,
        section="Model",
        description_md=text,
        **EMPTY,
    )


def training_form() -> dict[str, Param]:
    """The form of a training. Airflow refuses a value outside these schemas; tasks/settings.py
    checks paths.
    """
    run, model, gate = {"section": "Run"}, {"section": "Model"}, {"section": "Gate"}
    return {
        "config": config_param(),
        "data": data_param(),
        "landed": Param(
            False,
            type="boolean",
            title="Landed days",
            description_md="Read the window from the days that `ingest_interactions` has kept, not from the log.",
            **run,
        ),
        "test_day": optional(
            "string",
            format="date",
            title="Test day",
            description_md="The day to judge on; the days before it train. Empty: the config's, or the window's own last day.",
            **run,
        ),
        "seed": optional(
            "integer", minimum=0, title="Seed", description_md="Same seed, same numbers.", **run
        ),
        "tower": choice(TOWERS, "Tower", "The network on each side."),
        "loss": choice(
            LOSSES, "Loss", "Softmax losses correct for how negatives were drawn (log-Q)."
        ),
        "sampler": choice(
            SAMPLERS,
            "Sampler",
            "Where negatives come from. `active`: items alive in the hour of the click.",
        ),
        "epochs": optional(
            "integer",
            minimum=1,
            maximum=1000,
            title="Epochs",
            description_md="At most so many; training stops when recall does.",
            **model,
        ),
        "device": optional(
            "string",
            enum=[None, "auto", "cpu", "cuda"],
            title="Device",
            description_md="`auto`: a GPU if there is one.",
            **model,
            **EMPTY,
        ),
        "settings": settings_param(),
        "gate_floor": optional(
            "number",
            minimum=0,
            maximum=1,
            title="Gate floor",
            description_md="Recall@200 that the served index must reach, 0 to 1.",
            **gate,
        ),
    }
