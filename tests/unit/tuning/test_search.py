"""What a search proposes, on objectives whose best is known."""

import builtins

import pytest

from dssm_core.errors import ConfigError
from dssm_core.tuning.proposals import Range, propose


def searched(axes, objective, rounds, count=4, seed=1, works=lambda chosen: True):
    """Rounds of proposals, each told what those before it have reached."""
    told = []
    for _ in range(rounds):
        told += [
            (chosen, objective(dict(chosen))) for chosen in propose(axes, told, count, seed, works)
        ]
    return told


def test_it_moves_to_what_reaches_more():
    """Half of 24 trials by chance would take the best loss in a third of them, and a rate within a
    factor of two of the best in 0.46.
    """
    axes = {"rate": Range(0.0005, 0.01, log=True), "loss": ["a", "b", "c"]}
    late = []
    for seed in range(5):
        told = searched(
            axes,
            lambda chosen: (chosen["loss"] == "b") - abs(chosen["rate"] - 0.003) * 100,
            rounds=6,
            seed=seed,
        )
        late += [dict(chosen) for chosen, _ in told[-12:]]
    assert sum(chosen["loss"] == "b" for chosen in late) >= 30
    assert sum(0.0015 <= chosen["rate"] <= 0.006 for chosen in late) >= 36


def test_the_same_seed_proposes_the_same_and_another_does_not():
    axes = {"rate": Range(0.0005, 0.01, log=True), "epochs": Range(1, 8)}
    one, again, other = (
        searched(axes, lambda chosen: chosen["rate"], rounds=3, seed=seed) for seed in (1, 1, 2)
    )
    assert one == again != other
    assert all(
        isinstance(dict(chosen)["epochs"], int) and 1 <= dict(chosen)["epochs"] <= 8
        for chosen, _ in one
    )
    assert all(
        0.0005 <= dict(chosen)["rate"] == float(f"{dict(chosen)['rate']:.3g}") <= 0.01
        for chosen, _ in one
    )


def test_nothing_is_proposed_twice_and_a_space_ends():
    axes = {"loss": ["a", "b"], "dims": [[64, 32], [32]]}
    told = searched(axes, lambda chosen: 1.0, rounds=2)
    assert len({repr(chosen) for chosen, _ in told}) == len(told) == 4
    assert propose(axes, told, 4, 1) == []


def test_what_failed_is_told_and_what_cannot_work_is_not_proposed():
    axes = {"loss": ["a", "b", "c"], "rate": Range(0.1, 1.0)}
    told = searched(
        axes,
        lambda chosen: None if chosen["loss"] == "a" else chosen["rate"],
        4,
        works=lambda chosen: ("loss", "c") not in chosen,
    )
    assert len(told) == 16
    assert {dict(chosen)["loss"] for chosen, _ in told} == {"a", "b"}
    assert all((reached is None) == (dict(chosen)["loss"] == "a") for chosen, reached in told)


def test_without_optuna_it_is_said(monkeypatch):
    real = builtins.__import__

    def missing(name, *rest, **more):
        if name == "optuna":
            raise ImportError(name)
        return real(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", missing)
    with pytest.raises(ConfigError, match="pip install 'optuna'"):
        propose({"loss": ["a"]}, [], 1, 0)
