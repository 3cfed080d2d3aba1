"""Pools against loops over each prefix; the parallel scan against the recurrence, step by step."""

import pytest
import torch

from dssm_core.config import History
from dssm_core.models.pooling import Pools, by_doubling, by_step, running_attention, scan

torch.manual_seed(0)
VALUES = torch.randn(2, 5, 3)
HELD = torch.tensor([[True] * 5, [True] * 2 + [False] * 3])

PREFIX = {
    "mean": lambda past: past.mean(0),
    "sum": lambda past: past.sum(0),
    "max": lambda past: past.amax(0),
    "last": lambda past: past[-1],
    "decay": lambda past: (
        (past * (w := 0.5 ** torch.arange(len(past) - 1, -1, -1.0))[:, None]).sum(0) / w.sum()
    ),
}


@pytest.mark.parametrize("kind", sorted(PREFIX))
def test_a_pool_at_every_place_is_that_of_its_prefix(kind):
    pools = Pools(History(pools=(kind,), decays=(0.5,)), 3)
    (every,), (newest,) = pools(VALUES, HELD, True), pools(VALUES, HELD, False)
    for row, length in enumerate((5, 2)):
        for place in range(length):
            torch.testing.assert_close(every[row, place], PREFIX[kind](VALUES[row, : place + 1]))
        torch.testing.assert_close(newest[row], PREFIX[kind](VALUES[row, :length]))


def test_attention_weighs_by_the_softmax_of_its_score():
    pools = Pools(History(pools=("attention",)), 3)
    (every,) = pools(VALUES, HELD, True)
    for place in range(5):
        past = VALUES[0, : place + 1]
        torch.testing.assert_close(every[0, place], (pools.score(past).softmax(0) * past).sum(0))


def test_attention_does_not_look_ahead():
    values, held = torch.tensor([[[1.0], [2.0], [9.0]]]), torch.ones(1, 3, dtype=torch.bool)
    pooled = running_attention(values, held, torch.tensor([[0.0, 0.0, 25.0]]))
    assert pooled[0, :2, 0].tolist() == pytest.approx([1.0, 1.5])


def test_nothing_held_pools_to_nothing():
    pools = Pools(History(pools=("mean", "sum", "max", "decay", "attention")), 3)
    for field in pools(torch.zeros(1, 4, 3), torch.zeros(1, 4, dtype=torch.bool), False):
        assert field.tolist() == [[0.0, 0.0, 0.0]]


def test_decays_are_learned_on_request_only():
    for learn in (True, False):
        pools = Pools(History(pools=("decay",), decays=(0.5, 0.9), learn_decays=learn), 3)
        torch.testing.assert_close(pools.log_odds.sigmoid(), torch.tensor([0.5, 0.9]))
        assert pools.log_odds.requires_grad == learn
        assert pools.dims == [3, 3]


@pytest.mark.parametrize("length", [1, 2, 7, 64])
def test_the_scan_is_the_recurrence(length):
    keep, new = (
        torch.rand(2, length, 3, dtype=torch.double),
        torch.randn(2, length, 3, dtype=torch.double),
    )
    state, states = torch.zeros(2, 3, dtype=torch.double), []
    for place in range(length):
        state = keep[:, place] * state + new[:, place]
        states.append(state)
    for found in (scan(keep, new), by_step(keep, new), by_doubling(keep, new)):
        torch.testing.assert_close(found, torch.stack(states, 1))


def test_the_scan_has_the_gradient_of_the_recurrence():
    keep = torch.rand(2, 6, 3, dtype=torch.double, requires_grad=True)
    new = torch.randn(2, 6, 3, dtype=torch.double, requires_grad=True)
    assert torch.autograd.gradcheck(scan, (keep, new))
