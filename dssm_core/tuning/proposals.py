"""An Optuna search over a sweep's axes: each round is proposed by what the trials before it have
reached.

The study is built anew from those results, so that nothing is kept beside the runs themselves, and
the same results and seed propose the
same. Method: tree-structured Parzen estimator (Bergstra et al., 2011), with the others of a round
taken for bad until they are known.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dssm_core.errors import ConfigError

Chosen = tuple[tuple[str, Any], ...]  # the value on each axis
SEARCHES = ("grid", "optuna")
MOST_TRIALS = 200
ASKS = 20  # a proposal, at most, until one is neither known nor impossible
DIGITS = 3  # of a number that is proposed: more would only make settings that nobody can read


@dataclass(frozen=True)
class Range:
    """All numbers from low to high, whole ones where both are; log: by ratio. ValueError where
    there are none, or a ratio has no sense.
    """

    low: float
    high: float
    log: bool = False

    def __post_init__(self) -> None:
        if not self.low < self.high or (self.log and self.low <= 0):
            raise ValueError(
                f"{self.low}..{self.high} must rise{', from above 0' if self.log else ''}"
            )

    @property
    def whole(self) -> bool:
        """Whether only whole numbers are meant."""
        return isinstance(self.low, int) and isinstance(self.high, int)


Axes = Mapping[str, Sequence[Any] | Range]


def propose(
    axes: Axes,
    told: Sequence[tuple[Chosen, float | None]],
    count: int,
    seed: int,
    works: Callable[[Chosen], bool] = lambda chosen: True,
) -> list[Chosen]:
    """At most `count` combinations to try next, none of them told or impossible; fewer where the
    space is spent.

    told: what was tried, with what it reached; None where it failed. ConfigError where Optuna is
    not installed.
    """
    study, space = _study(axes, told, seed)
    known: set[str] = {json.dumps(chosen) for chosen, _ in told}
    found: list[Chosen] = []
    for _ in range(ASKS * count):
        if len(found) == count:
            break
        asked = study.ask(space)
        chosen = tuple((key, _value(axis, asked.params[key])) for key, axis in axes.items())
        if (name := json.dumps(chosen)) in known:
            continue
        known.add(name)
        if works(chosen):
            found.append(chosen)
        else:
            study.tell(asked, state=_optuna().trial.TrialState.FAIL)
    return found


def _study(
    axes: Axes, told: Sequence[tuple[Chosen, float | None]], seed: int
) -> tuple[Any, dict[str, Any]]:
    """A study that knows what was told, and its space."""
    optuna = _optuna()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    space = {key: _distribution(optuna, axis) for key, axis in axes.items()}
    sampler = optuna.samplers.TPESampler(seed=seed + len(told), n_startup_trials=max(1, len(axes)))
    study, state = (
        optuna.create_study(direction="maximize", sampler=sampler),
        optuna.trial.TrialState,
    )
    for chosen, reached in told:
        params = {
            key: value if isinstance(axes[key], Range) else json.dumps(value)
            for key, value in chosen
        }
        ended = (
            {"state": state.FAIL}
            if reached is None
            else {"state": state.COMPLETE, "value": reached}
        )
        study.add_trial(optuna.trial.create_trial(params=params, distributions=space, **ended))
    return study, space


def _distribution(optuna: Any, axis: Sequence[Any] | Range) -> Any:
    if not isinstance(axis, Range):
        return optuna.distributions.CategoricalDistribution([json.dumps(value) for value in axis])
    if axis.whole:
        return optuna.distributions.IntDistribution(int(axis.low), int(axis.high), log=axis.log)
    return optuna.distributions.FloatDistribution(axis.low, axis.high, log=axis.log)


def _value(axis: Sequence[Any] | Range, asked: Any) -> Any:
    """What Optuna proposes, as a setting."""
    if not isinstance(axis, Range):
        return json.loads(asked)
    return asked if axis.whole else min(max(float(f"{asked:.{DIGITS}g}"), axis.low), axis.high)


def _optuna() -> Any:
    try:
        import optuna
    except ImportError as error:
        raise ConfigError(
            "a search needs Optuna, which is not installed: pip install 'optuna', or sweep a grid"
        ) from error
    return optuna
