"""A sweep: combinations of settings are tried, and judged on the last training days.

A trial is a run whose test days are the validation days of the config, so that the test day plays
no part in the choice. The first trial executes ingest, validation and split; the others reuse
them. The settings of the winner then go through the whole pipeline, which trains on all days and
judges on the test day. A grid tries every combination at once. A search (proposals.py) runs in
rounds; each round is proposed from the results of the earlier ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from itertools import product
from pathlib import Path

from dssm_core.config import Config, read_config
from dssm_core.data.splits.days import Days
from dssm_core.errors import ConfigError
from dssm_core.runs.files import digest
from dssm_core.runs.run import create_run
from dssm_core.tuning.axes import Axes, Range, Values
from dssm_core.tuning.proposals import MOST_TRIALS, propose
from dssm_core.tuning.trials import Combination, Trial

ROUNDS = 4  # of a search. More rounds learn more, but run fewer trials at a time.
LEAST_TRAIN_DAYS = 2


@dataclass(frozen=True)
class Plan:
    """What a sweep tries.

    file: the config. data: the log, instead of the config's own. overrides: settings of all
    trials. search: "grid" or "optuna". total: number of trials of a search by optuna.
    """

    file: Path
    data: Path | str | None
    overrides: tuple[str, ...]
    axes: Axes
    search: str = "grid"
    total: int = 12

    def config(self, combination: Combination) -> Config:
        """The config of a trial, tested on the validation days. ConfigError if it is invalid."""
        settings = [*self.overrides, *combination.settings]
        return on_validation_days(read_config(self.file, self.data, settings))

    def is_possible(self, values: Values) -> bool:
        """Whether the values give a valid config."""
        try:
            self.config(Combination(values))
        except ConfigError:
            return False
        return True


def combinations(axes: Axes) -> list[Combination]:
    """Every combination, in the order of the axes.

    ConfigError if an axis is a range, or if there are no combinations or more than MOST_TRIALS.
    """
    listed = {key: axis for key, axis in axes.items() if not isinstance(axis, Range)}
    if ranges := sorted(set(axes) - set(listed)):
        raise ConfigError(
            f"{', '.join(ranges)}: a grid cannot combine all values of a range; "
            "list the values, or search by optuna"
        )
    pairs = [[(key, value) for value in axis] for key, axis in listed.items()]
    grid = [Combination(values) for values in product(*pairs)] if axes else []
    if not grid or len(grid) > MOST_TRIALS:
        raise ConfigError(
            f"{len(grid)} trials: give one or more axes, and at most {MOST_TRIALS} combinations"
        )
    return grid


def next_round(plan: Plan, trials: Sequence[Trial]) -> list[Combination]:
    """The combinations to try after the given trials; empty if the sweep is over.

    A search also ends if all trials so far failed: the cause is then what they have in common.
    ConfigError if nothing can be tried at all.
    """
    if plan.search == "grid":
        return [] if trials else combinations(plan.axes)
    if trials and all(trial.recall is None for trial in trials):
        return []
    if not plan.axes or not 1 <= plan.total <= MOST_TRIALS:
        raise ConfigError(
            f"{plan.total} trials on {len(plan.axes)} axes: give one or more axes, "
            f"and 1 to {MOST_TRIALS} trials"
        )
    count = min(-(-plan.total // ROUNDS), plan.total - len(trials))
    results = [(trial.combination.values, trial.recall) for trial in trials]
    seed = read_config(plan.file, plan.data, plan.overrides).seed
    proposals = propose(plan.axes, results, count, seed, plan.is_possible)
    if not proposals and not trials:
        raise ConfigError(
            f"no combination of {', '.join(plan.axes)} works: try one with `dssm run --set` "
            "to see why"
        )
    return [Combination(values) for values in proposals]


def on_validation_days(config: Config) -> Config:
    """The config with its validation days as test days; it trains on the days before them.

    ConfigError if the split has no days, or too few to train on.
    """
    split = config.split
    if not isinstance(split, Days):
        raise ConfigError(
            f"a sweep judges on the last training days, which split {split.kind!r} does not have: "
            "use split.kind days"
        )
    days = split.validation_days
    train_days = split.train_days - days
    if train_days <= days or train_days < LEAST_TRAIN_DAYS:
        raise ConfigError(
            f"split.train_days {split.train_days} leaves {train_days} days to train a trial on: "
            "set it higher, or split.validation_days lower"
        )
    settings = {
        "test_day": split.test_day - timedelta(days=days),
        "train_days": train_days,
        "test_days": days,
    }
    return config.model_copy(update={"split": split.model_copy(update=settings)})


def prepare(plan: Plan, chosen: Sequence[Combination], runs: Path | str) -> list[Trial]:
    """Create the runs of a round, without executing them.

    ConfigError lists every combination whose config is invalid, and why.
    """
    trials = []
    problems = []
    for combination in chosen:
        try:
            config = plan.config(combination)
            run_id = f"trial-{digest(config.deciding())[:10]}"
            trials.append(Trial(combination, create_run(config, runs, run_id)))
        except ConfigError as error:
            problems.append(f"{combination.label}: {error}")
    if problems:
        raise ConfigError("\n".join(problems))
    return trials
