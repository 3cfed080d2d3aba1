"""Trials of settings against each other: combinations of some axes, judged on the last train days,
never on the test day.

A trial is a run of its own whose test days are the config's validation days; ingest, validation and
split are executed by the first and reused by the others. The winner's settings then go through the
whole pipeline, which trains on all days and is judged on the test day. A grid tries every
combination at once; a search (search.py) goes in rounds, each proposed by what the ones before have
reached.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from itertools import product
from pathlib import Path
from typing import Any

import yaml

from dssm_core.aliases import JSON
from dssm_core.config import Config, read_config
from dssm_core.data.splits.days import Days
from dssm_core.errors import ConfigError, DataError
from dssm_core.runs.files import digest
from dssm_core.runs.gate_report import GateReport, find_gate_report
from dssm_core.runs.run import Run, create_run
from dssm_core.tuning.proposals import MOST_TRIALS, Axes, Chosen, Range, propose

FAMILIES = {
    "tower": "tower.kind",
    "loss": "loss.kind",
    "sampler": "sampler.kind",
    "index": "index.kind",
}  # short for their kind
ROUNDS = 4  # of a search: more learn more, and wait more for each other
LAST_STEP = "recall_gate"
RANGE = re.compile(r"([-+.\deE]+?)\.\.([-+.\deE]+)(\s+log)?")


@dataclass(frozen=True)
class Trial:
    """One combination: the values chosen on the axes."""

    chosen: Chosen

    @property
    def label(self) -> str:
        """For people: `loss=bce, train.epochs=2`."""
        return ", ".join(
            f"{key}={value if isinstance(value, str) else json.dumps(value)}"
            for key, value in self.chosen
        )

    @property
    def settings(self) -> tuple[str, ...]:
        """For a config: `key.path=value`."""
        return tuple(f"{FAMILIES.get(key, key)}={json.dumps(value)}" for key, value in self.chosen)


@dataclass(frozen=True)
class Plan:
    """What a sweep tries on which log: a config's file, the settings of all trials, the axes;
    total: trials of a search.
    """

    file: Path
    data: Path | str | None
    overrides: tuple[str, ...]
    axes: Axes
    search: str = "grid"
    total: int = 12

    def config(self, trial: Trial) -> Config:
        """A trial's config, on the validation days. ConfigError where its settings cannot work."""
        return on_validation_days(
            read_config(self.file, self.data, [*self.overrides, *trial.settings])
        )

    def works(self, chosen: Chosen) -> bool:
        """Whether the values go together."""
        try:
            self.config(Trial(chosen))
        except ConfigError:
            return False
        return True


@dataclass(frozen=True)
class Tried:
    """A trial and its run. failed: in this sweep; what an earlier one has left in the same run is
    of another log or code.
    """

    trial: Trial
    run: Run
    failed: bool = False

    @property
    def judged(self) -> GateReport | None:
        """The report of the gate; None where the trial failed."""
        return None if self.failed else find_gate_report(self.run)

    @property
    def recall(self) -> float | None:
        """Recall of the served index; None where the trial failed."""
        judged = self.judged
        return judged.metrics.served.value(self.run.config.gate.metric) if judged else None


def read_axes(texts: Sequence[str]) -> dict[str, list[Any] | Range]:
    """Axes from `key.path=value,value` (the values as YAML), or `key.path=low..high` with ` log`
    behind it where steps are ratios.

    `tower`, `loss`, `sampler` and `index` are short for their kind. ConfigError on what is no axis.
    """
    axes: dict[str, list[Any] | Range] = {}
    for text in texts:
        key, equals, values = text.partition("=")
        try:
            found = _range(values) or [_number(value) for value in yaml.safe_load(f"[{values}]")]
        except (yaml.YAMLError, ValueError) as error:
            raise ConfigError(f"axis {text!r}: {error}") from error
        if not key or not equals or not found:
            raise ConfigError(
                f"axis {text!r} is not KEY=VALUE,VALUE, such as loss=bce,sampled_softmax or train.epochs=2,4"
            )
        axes[key] = found
    return axes


def _number(value: Any) -> Any:
    """YAML takes 1e-3 for a text, and 2024-03-06 for a day."""
    if isinstance(value, date):
        raise ValueError(
            f"{value} is a day, and all trials are judged on the same: set split.test_day beside the axes"
        )
    try:
        return float(value) if isinstance(value, str) else value
    except ValueError:
        return value


def _range(text: str) -> Range | None:
    if not (found := RANGE.fullmatch(text.strip())):
        return None
    low, high = (
        yaml.safe_load(number) if number.lstrip("+-").isdigit() else float(number)
        for number in found.groups()[:2]
    )
    return Range(low, high, found[3] is not None)


def trials(axes: Axes) -> list[Trial]:
    """Every combination, in the order of the axes. ConfigError on ranges, where there is none, or
    more than MOST_TRIALS.
    """
    listed = {key: values for key, values in axes.items() if not isinstance(values, Range)}
    if ranges := sorted(set(axes) - set(listed)):
        raise ConfigError(
            f"{', '.join(ranges)}: a range has no end of values to combine; list some, or search by optuna"
        )
    combinations = list(
        product(*([(key, value) for value in values] for key, values in listed.items()))
    )
    if not axes or len(combinations) > MOST_TRIALS:
        raise ConfigError(
            f"{len(combinations) if axes else 0} trials: give one or more axes, and at most {MOST_TRIALS} combinations of them"
        )
    return [Trial(chosen) for chosen in combinations]


def next_round(plan: Plan, tried: Sequence[Tried]) -> list[Trial]:
    """What to try after what was tried; empty where the sweep is over. ConfigError where nothing
    can be tried at all.
    """
    if plan.search == "grid":
        return [] if tried else trials(plan.axes)
    if tried and all(each.recall is None for each in tried):  # what they have in common fails
        return []
    if not plan.axes or not 1 <= plan.total <= MOST_TRIALS:
        raise ConfigError(
            f"{plan.total} trials on {len(plan.axes)} axes: give one or more axes, and 1 to {MOST_TRIALS} trials"
        )
    count = min(-(-plan.total // ROUNDS), plan.total - len(tried))
    told = [(each.trial.chosen, each.recall) for each in tried]
    seed = read_config(plan.file, plan.data, plan.overrides).seed
    found = [Trial(chosen) for chosen in propose(plan.axes, told, count, seed, plan.works)]
    if not found and not tried:
        raise ConfigError(
            f"no combination of {', '.join(plan.axes)} works: try one by hand, with `dssm run --set`, to see why"
        )
    return found


def on_validation_days(config: Config) -> Config:
    """The config with its validation days as test days, and the days before them to train.
    ConfigError where the split has no days.
    """
    split = config.split
    if not isinstance(split, Days):
        raise ConfigError(
            f"a sweep chooses on the last train days, which split {split.kind!r} does not have: take split.kind days"
        )
    days, left = split.validation_days, split.train_days - split.validation_days
    if left <= days or left < 2:
        raise ConfigError(
            f"split.train_days {split.train_days} leaves {left} days to train a trial on: give more, or fewer validation_days"
        )
    settings = {
        "test_day": split.test_day - timedelta(days=days),
        "train_days": left,
        "test_days": days,
    }
    return config.model_copy(update={"split": split.model_copy(update=settings)})


def prepare(plan: Plan, wanted: Sequence[Trial], runs: Path | str) -> list[Tried]:
    """The runs of some trials, made but not executed. ConfigError tells every trial whose settings
    cannot work, and why.
    """
    made, problems = [], []
    for trial in wanted:
        try:
            config = plan.config(trial)
            made.append(
                Tried(
                    trial,
                    create_run(
                        config, runs, f"trial-{digest(config.model_dump(mode='json'))[:10]}"
                    ),
                )
            )
        except ConfigError as error:
            problems.append(f"{trial.label}: {error}")
    if problems:
        raise ConfigError("\n".join(problems))
    return made


def results(tried: Sequence[Tried]) -> list[JSON]:
    """What each trial reached, best first, failed ones (recall None) last: recall of the served
    index with its interval, seconds of training, ms a query, the values chosen.
    """
    found = [_result(each) for each in tried]
    return sorted(found, key=lambda row: (row["recall"] is None, -(row["recall"] or 0.0)))


def _result(tried: Tried) -> JSON:
    key = tried.run.config.gate.metric
    row: JSON = {
        "label": tried.trial.label,
        "run": str(tried.run.root),
        "metric": key,
        "recall": tried.recall,
        "low": None,
        "high": None,
    }
    row |= {"train_seconds": None, "ms_per_query": None, "chosen": dict(tried.trial.chosen)}
    if judged := tried.judged:
        served = judged.metrics.served
        rate = tried.run.need("build_index").info.get("queries_per_s")
        row |= {"low": served.value(f"{key}_low"), "high": served.value(f"{key}_high")}
        row |= {
            "train_seconds": tried.run.need("train_towers").seconds,
            "ms_per_query": 1000 / rate if rate else None,
        }
    return row


def winner(tried: Sequence[Tried]) -> Trial:
    """The trial with the highest recall, of several the first; DataError where none came to its
    end.
    """
    ended = [(each.recall, each.trial) for each in tried if each.recall is not None]
    if not ended:
        raise DataError("no trial came to its end: read their logs, and start the sweep again")
    return max(ended, key=lambda each: each[0])[1]


def as_json(tried: Tried) -> Mapping[str, Any]:
    """A trial for another process; `from_json` reads it."""
    return {
        "label": tried.trial.label,
        "chosen": list(tried.trial.chosen),
        "run": str(tried.run.root),
        "failed": tried.failed,
    }


def from_json(told: Mapping[str, Any], run: Run) -> Tried:
    """What `as_json` told, with its run opened."""
    return Tried(
        Trial(tuple((str(key), value) for key, value in told["chosen"])), run, told["failed"]
    )
