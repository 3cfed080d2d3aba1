"""The proposals of a search, on objectives whose best value is known."""

import builtins

import pytest

from dssm_core.errors import ConfigError
from dssm_core.tuning.axes import Range
from dssm_core.tuning.proposals import propose


def searched(axes, objective, rounds, count=4, seed=1, is_possible=lambda values: True):
    """The results of some rounds of proposals, each made from the results of those before it."""
    results = []
    for _ in range(rounds):
        proposals = propose(axes, results, count, seed, is_possible)
        results += [(values, objective(dict(values))) for values in proposals]
    return results


def test_proposals_move_to_better_values():
    """By chance, a third of the trials would use the best loss, and 0.46 of them a rate within a
    factor of two of the best one.
    """
    axes = {"rate": Range(0.0005, 0.01, log=True), "loss": ["a", "b", "c"]}
    late = []
    for seed in range(5):
        results = searched(
            axes,
            lambda values: (values["loss"] == "b") - abs(values["rate"] - 0.003) * 100,
            rounds=6,
            seed=seed,
        )
        late += [dict(values) for values, _ in results[-12:]]
    assert sum(values["loss"] == "b" for values in late) >= 30
    assert sum(0.0015 <= values["rate"] <= 0.006 for values in late) >= 36


def test_equal_seeds_give_equal_proposals_and_others_do_not():
    axes = {"rate": Range(0.0005, 0.01, log=True), "epochs": Range(1, 8)}
    one, again, other = (
        searched(axes, lambda values: values["rate"], rounds=3, seed=seed) for seed in (1, 1, 2)
    )
    assert one == again != other
    assert all(
        isinstance(dict(values)["epochs"], int) and 1 <= dict(values)["epochs"] <= 8
        for values, _ in one
    )
    assert all(
        0.0005 <= dict(values)["rate"] == float(f"{dict(values)['rate']:.3g}") <= 0.01
        for values, _ in one
    )


def test_nothing_is_proposed_twice_and_a_finite_space_is_exhausted():
    axes = {"loss": ["a", "b"], "dims": [[64, 32], [32]]}
    results = searched(axes, lambda values: 1.0, rounds=2)
    assert len({repr(values) for values, _ in results}) == len(results) == 4
    assert propose(axes, results, 4, 1) == []


def test_failed_trials_are_results_and_impossible_ones_are_not_proposed():
    axes = {"loss": ["a", "b", "c"], "rate": Range(0.1, 1.0)}
    results = searched(
        axes,
        lambda values: None if values["loss"] == "a" else values["rate"],
        4,
        is_possible=lambda values: ("loss", "c") not in values,
    )
    assert len(results) == 16
    assert {dict(values)["loss"] for values, _ in results} == {"a", "b"}
    assert all((recall is None) == (dict(values)["loss"] == "a") for values, recall in results)


def test_without_optuna_the_error_says_what_to_install(monkeypatch):
    real = builtins.__import__

    def missing(name, *rest, **more):
        if name == "optuna":
            raise ImportError(name)
        return real(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", missing)
    with pytest.raises(ConfigError, match="pip install 'optuna'"):
        propose({"loss": ["a"]}, [], 1, 0)
