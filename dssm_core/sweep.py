"""Trials of settings against each other: every combination of some axes, judged on the last train days, never on the test day.

A trial is a run of its own whose test days are the config's validation days; ingest, validation and split are executed by the first and
reused by the others. The winner's settings then go through the whole pipeline, which trains on all days and is judged on the test day.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from itertools import product
from pathlib import Path
from typing import Any

import yaml

from dssm_core.artifacts import JSON, Run, create_run, digest, open_run
from dssm_core.config import Config, read_config
from dssm_core.errors import ConfigError, DataError
from dssm_core.gate import metric
from dssm_core.splits.days import Days

FAMILIES = {"tower": "tower.kind", "loss": "loss.kind", "sampler": "sampler.kind", "index": "index.kind"}  # short for their kind
MOST_TRIALS = 200
LAST_STEP = "recall_gate"


@dataclass(frozen=True)
class Trial:
    """One combination: `label` for people, settings as `key.path=value`."""

    label: str
    settings: tuple[str, ...]


def read_axes(texts: Sequence[str]) -> dict[str, list[Any]]:
    """Axes from `key.path=value,value`, the values as YAML; `tower`, `loss`, `sampler` and `index` are short for their kind.

    ConfigError on what is no axis.
    """
    axes: dict[str, list[Any]] = {}
    for text in texts:
        key, equals, values = text.partition("=")
        try:
            found = yaml.safe_load(f"[{values}]")
        except yaml.YAMLError as error:
            raise ConfigError(f"axis {text!r}: {error}") from error
        if not key or not equals or not found:
            raise ConfigError(f"axis {text!r} is not KEY=VALUE,VALUE, such as loss=bce,sampled_softmax or train.epochs=2,4")
        axes[key] = found
    return axes


def trials(axes: Mapping[str, Sequence[Any]]) -> list[Trial]:
    """Every combination, in the order of the axes. ConfigError where there is none, or more than MOST_TRIALS."""
    combinations = list(product(*([(key, value) for value in values] for key, values in axes.items())))
    if not axes or len(combinations) > MOST_TRIALS:
        raise ConfigError(
            f"{len(combinations) if axes else 0} trials: give one or more axes, and at most {MOST_TRIALS} combinations of them"
        )
    return [
        Trial(_label(chosen), tuple(f"{FAMILIES.get(key, key)}={json.dumps(value)}" for key, value in chosen)) for chosen in combinations
    ]


def _label(chosen: Sequence[tuple[str, Any]]) -> str:
    return ", ".join(f"{key}={value if isinstance(value, str) else json.dumps(value)}" for key, value in chosen)


def on_validation_days(config: Config) -> Config:
    """The config with its validation days as test days, and the days before them to train. ConfigError where the split has no days."""
    split = config.split
    if not isinstance(split, Days):
        raise ConfigError(f"a sweep chooses on the last train days, which split {split.kind!r} does not have: take split.kind days")
    days, left = split.validation_days, split.train_days - split.validation_days
    if left <= days or left < 2:
        raise ConfigError(
            f"split.train_days {split.train_days} leaves {left} days to train a trial on: give more, or fewer validation_days"
        )
    settings = {"test_day": split.test_day - timedelta(days=days), "train_days": left, "test_days": days}
    return config.model_copy(update={"split": split.model_copy(update=settings)})


def prepare(file: Path, data: Path | str | None, overrides: Sequence[str], wanted: Sequence[Trial], runs: Path | str) -> list[Run]:
    """The runs of all trials, made but not executed. ConfigError tells every trial whose settings cannot work, and why."""
    made, problems = [], []
    for trial in wanted:
        try:
            config = on_validation_days(read_config(file, data, [*overrides, *trial.settings]))
            made.append(create_run(config, runs, f"trial-{digest(config.model_dump(mode='json'))[:10]}"))
        except ConfigError as error:
            problems.append(f"{trial.label}: {error}")
    if problems:
        raise ConfigError("\n".join(problems))
    return made


def results(labels: Sequence[str], runs: Sequence[Run]) -> list[JSON]:
    """What each trial that came to its end reached, best first: recall of the served index with its interval, seconds, ms a query."""
    found = []
    for label, run in zip(labels, runs, strict=True):
        if judged := run.manifest(LAST_STEP):
            key, served = metric(run.config.gate), judged.info["metrics"]["served"]
            row = {"label": label, "run": str(run.root), key: served[key], "low": served[f"{key}_low"], "high": served[f"{key}_high"]}
            seconds = run.need("train_towers").seconds
            rate = run.need("build_index").info.get("queries_per_s")
            found.append(row | {"train_seconds": seconds, "ms_per_query": 1000 / rate if rate else None})
    return sorted(found, key=lambda row: -(row[metric(open_run(row["run"]).config.gate)] or 0.0))


def winner(found: Sequence[JSON], trials: Sequence[Trial]) -> Trial:
    """The trial with the highest recall; DataError where none came to its end."""
    if not found:
        raise DataError("no trial came to its end: read their logs, and start the sweep again")
    return next(trial for trial in trials if trial.label == found[0]["label"])
