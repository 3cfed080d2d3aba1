"""The form fields and task defaults that several Dags share."""

from __future__ import annotations

import os
from datetime import timedelta
from textwrap import shorten
from typing import Any

from airflow.sdk import ExceptionRetryPolicy, Param, RetryAction, RetryRule

from dssm_core.errors import ConfigError, ConflictError, DataError
from dssm_core.families import BASELINES, LOSSES, SAMPLERS, TOWERS, summary
from tasks.outcomes import tell_failure
from tasks.settings import config_files

OPEN = "Run Parameters"  # the name of the only section that Airflow opens with the form
LABEL_LETTERS = 80  # of a choice in a drop-down
EMPTY: dict[str, Any] = {"values_display": {"null": "as the config says"}}

TASK_DEFAULTS: dict[str, Any] = {
    "retries": 2,
    "retry_delay": timedelta(seconds=10),
    "retry_exponential_backoff": 2.0,
    "max_retry_delay": timedelta(minutes=5),
    "execution_timeout": timedelta(hours=1),
    "on_failure_callback": tell_failure,
    # These errors would occur again. A killed worker, a full disk or an unreachable server is
    # retried.
    "retry_policy": ExceptionRetryPolicy(
        rules=[
            RetryRule(
                exception=[ConfigError, ConflictError, DataError],
                action=RetryAction.FAIL,
                reason="the same data and settings would fail again",
            )
        ]
    ),
}


def training_task() -> dict[str, Any]:
    """The arguments of the tasks that train. $DSSM_TRAIN_QUEUE and $DSSM_TRAIN_EXECUTOR say where
    they run if not where all tasks run, such as on workers with a GPU. $DSSM_TRAIN_POD_TEMPLATE is
    the file of their pod on Kubernetes.
    """
    where = {name: os.environ.get(f"DSSM_TRAIN_{name.upper()}") for name in ("queue", "executor")}
    training = {"pool": "gpu", "execution_timeout": timedelta(hours=6)}
    training |= {name: value for name, value in where.items() if value}
    if template := os.environ.get("DSSM_TRAIN_POD_TEMPLATE"):
        training["executor_config"] = {"pod_template_file": template}
    return training


def default_config() -> str:
    """$DSSM_CONFIG if it names a config, else `demo`, else the first config."""
    configs = list(config_files()) or ["demo"]
    preferred = (os.environ.get("DSSM_CONFIG"), "demo")
    return next((name for name in preferred if name in configs), configs[0])


def optional(kind: str, default: Any = None, **schema: Any) -> Param:
    """A form field that may be left empty, and so has no asterisk. kind: its JSON type."""
    return Param(default, type=["null", kind], **schema)


def between(least: float, most: float | None = None) -> dict[str, Any]:
    """The limits of a number, which Airflow checks when a run is triggered. With `minimum` and
    `maximum` themselves, the form would replace a number outside of them by the limit.
    """
    limits = {"minimum": least} | ({} if most is None else {"maximum": most})
    return {"allOf": [limits]}


def config_param() -> Param:
    """The field for a config of $DSSM_CONFIGS. Scheduled runs use its default, $DSSM_CONFIG."""
    configs = list(config_files()) or ["demo"]
    return Param(
        default_config(),
        type="string",
        enum=configs,
        title="Config",
        section=OPEN,
        description_md="The name of a YAML file in the folder of configs.",
    )


def data_param() -> Param:
    """The field for the path of the log. Its default is $DSSM_DATA_PATH."""
    return optional(
        "string",
        os.environ.get("DSSM_DATA_PATH") or None,
        maxLength=1000,
        title="Data",
        section=OPEN,
        description_md="Absolute path of the log, which the workers can read. "
        "Empty: the path in the config.",
    )


def settings_param() -> Param:
    """The field for any settings of the config."""
    return optional(
        "array",
        [],
        items={"type": "string", "pattern": r"^[a-z_0-9.]+=.+"},
        title="Further settings",
        section="Model",
        description_md="One key.path=value per line, such as train.learning_rate=0.002.",
    )


def labels(family: dict[str, str]) -> dict[str, str]:
    """Each member of a family by its name, with what it is in a few words."""
    return {
        name: shorten(f"{name}: {summary(path)}", LABEL_LETTERS, placeholder=" …")
        for name, path in family.items()
    }


def choice(family: dict[str, str], title: str, text: str) -> Param:
    """A field for one member of a family, each with what it is. Empty: the member that the config
    names.
    """
    return optional(
        "string",
        enum=[None, *sorted(family)],
        title=title,
        section="Model",
        description_md=text,
        values_display=EMPTY["values_display"] | labels(family),
    )


def baselines_param() -> Param:
    """A field for several baselines. Empty: those of the config."""
    return optional(
        "array",
        items={"type": "string", "enum": sorted(BASELINES)},
        examples=sorted(BASELINES),
        values_display=labels(BASELINES),
        title="Baselines",
        section="Gate",
        description_md="What the served index must be better than. Empty: as the config says.",
    )


def training_form() -> dict[str, Param]:
    """The form of a training. Airflow refuses values outside these schemas; tasks/settings.py
    checks paths.
    """
    run = {"section": OPEN}
    model = {"section": "Model"}
    gate = {"section": "Gate"}
    return {
        "config": config_param(),
        "data": data_param(),
        "landed": optional(
            "boolean",
            False,
            title="Landed days",
            description_md="Read the days that ingest_interactions has landed, not the log.",
            **run,
        ),
        "test_day": optional(
            "string",
            format="date",
            title="Test day",
            description_md="The model is judged on this day and trained on the days before it. "
            "Empty: the day in the config, or the last day of the window.",
            **run,
        ),
        "seed": optional(
            "integer",
            **between(0),
            title="Seed",
            description_md="The same seed gives the same results.",
            **run,
        ),
        "tower": choice(TOWERS, "Tower", "The network of the user and of the item tower."),
        "loss": choice(
            LOSSES, "Loss", "Softmax losses correct for the probability of each negative (log-Q)."
        ),
        "sampler": choice(
            SAMPLERS,
            "Sampler",
            "Where negatives come from.",
        ),
        "epochs": optional(
            "integer",
            **between(1, 1000),
            title="Epochs",
            description_md="Maximum number of epochs. Training stops early if recall stops "
            "improving.",
            **model,
        ),
        "device": optional(
            "string",
            enum=[None, "auto", "cpu", "cuda"],
            title="Device",
            description_md="Where the model is trained.",
            values_display=EMPTY["values_display"] | {"auto": "auto: a GPU if there is one"},
            **model,
        ),
        "settings": settings_param(),
        "gate_floor": optional(
            "number",
            **between(0, 1),
            title="Gate floor",
            description_md="Recall that the served index must reach, from 0 to 1.",
            **gate,
        ),
        "baselines": baselines_param(),
    }
