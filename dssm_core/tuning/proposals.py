"""A search by Optuna over the axes of a sweep: each round is proposed from the results so far.

The study is rebuilt from these results, so that nothing is stored beside the runs. Equal results
and seeds give equal proposals. Method: tree-structured Parzen estimator (Bergstra et al., 2011);
within a round, combinations that are not run yet count as bad.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

from dssm_core.errors import ConfigError
from dssm_core.tuning.axes import Axes, Axis, Range, Values

SEARCHES = ("grid", "optuna")
MOST_TRIALS = 200
MOST_ATTEMPTS = 20  # to find a proposal that is neither a repetition nor impossible
DIGITS = 3  # significant digits of a proposed number; more make settings that are hard to read

Result = tuple[Values, float | None]  # values that were tried, and their recall; None: failed


def propose(
    axes: Axes,
    results: Sequence[Result],
    count: int,
    seed: int,
    is_possible: Callable[[Values], bool] = lambda values: True,
) -> list[Values]:
    """At most `count` combinations to try next, none of them tried before or impossible. Fewer if
    no others are left.

    ConfigError if Optuna is not installed.
    """
    study, space = _study(axes, results, seed)
    known = {json.dumps(values) for values, _ in results}
    proposals: list[Values] = []
    for _ in range(MOST_ATTEMPTS * count):
        if len(proposals) == count:
            break
        trial = study.ask(space)
        values = tuple((key, _value(axis, trial.params[key])) for key, axis in axes.items())
        name = json.dumps(values)
        if name in known:
            continue
        known.add(name)
        if is_possible(values):
            proposals.append(values)
        else:
            study.tell(trial, state=_optuna().trial.TrialState.FAIL)
    return proposals


def _study(axes: Axes, results: Sequence[Result], seed: int) -> tuple[Any, dict[str, Any]]:
    """A study that holds the results, and its search space."""
    optuna = _optuna()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    space = {key: _distribution(optuna, axis) for key, axis in axes.items()}
    sampler = optuna.samplers.TPESampler(
        seed=seed + len(results), n_startup_trials=max(1, len(axes))
    )
    study = optuna.create_study(direction="maximize", sampler=sampler)
    for values, recall in results:
        params = {key: _parameter(axes[key], value) for key, value in values}
        state = optuna.trial.TrialState
        end = {"state": state.FAIL}
        if recall is not None:
            end = {"state": state.COMPLETE, "value": recall}
        study.add_trial(optuna.trial.create_trial(params=params, distributions=space, **end))
    return study, space


def _distribution(optuna: Any, axis: Axis) -> Any:
    if not isinstance(axis, Range):
        return optuna.distributions.CategoricalDistribution([json.dumps(value) for value in axis])
    if axis.whole:
        return optuna.distributions.IntDistribution(int(axis.low), int(axis.high), log=axis.log)
    return optuna.distributions.FloatDistribution(axis.low, axis.high, log=axis.log)


def _parameter(axis: Axis, value: Any) -> Any:
    """A setting as a parameter of Optuna, whose categories are JSON texts."""
    return value if isinstance(axis, Range) else json.dumps(value)


def _value(axis: Axis, parameter: Any) -> Any:
    """A parameter of Optuna as a setting."""
    if not isinstance(axis, Range):
        return json.loads(parameter)
    if axis.whole:
        return parameter
    return min(max(float(f"{parameter:.{DIGITS}g}"), axis.low), axis.high)


def _optuna() -> Any:
    try:
        import optuna
    except ImportError as error:
        raise ConfigError(
            "a search needs Optuna, which is not installed: pip install 'optuna', or sweep a grid"
        ) from error
    return optuna
