"""The fused softmax against the same loss from whole logits."""

import pytest
import torch

from dssm_core.training import fused_cross_entropy
from dssm_core.training.logits import BatchVectors
from dssm_core.training.losses.full_softmax import FullSoftmax
from dssm_core.training.losses.sampled_softmax import SampledSoftmax


def compared():
    torch.manual_seed(0)
    user, own, candidate = (torch.randn(size, 8, requires_grad=True) for size in (50, 50, 30))
    items, temperature = (
        (torch.randint(20, (50,)), torch.randint(20, (30,))),
        torch.tensor(0.5, requires_grad=True),
    )
    return BatchVectors(
        user, own, candidate, temperature, *items, torch.zeros(50), torch.randn(30), 20
    )


@pytest.mark.parametrize(
    "loss", [SampledSoftmax(), SampledSoftmax(log_q=False), FullSoftmax()], ids=repr
)
@pytest.mark.parametrize("at_once", [1, 70, 10**6])
def test_loss_and_gradients_are_those_of_the_logits(monkeypatch, loss, at_once):
    monkeypatch.setitem(fused_cross_entropy.LOGITS_AT_ONCE, "cpu", at_once)
    given = compared()
    one, other = loss.fused(given), loss(given.logits)
    torch.testing.assert_close(one, other)
    torch.testing.assert_close(
        torch.autograd.grad(one, given[:4]), torch.autograd.grad(other, given[:4])
    )


@pytest.mark.parametrize("at_once", [1, 70, 10**6])
def test_what_the_own_user_took_is_left_out(monkeypatch, at_once):
    """With padding, where all pairs are compared, and without, where equal ones are looked up."""
    monkeypatch.setitem(fused_cross_entropy.LOGITS_AT_ONCE, "cpu", at_once)
    users = {"own_users": torch.arange(50) % 4, "candidate_users": torch.arange(30) % 6 - 1}
    given = compared()._replace(**users, candidate_items=torch.randint(1, 20, (30,)))
    out = torch.tensor(
        [
            [one == other or user == whose for other, whose in zip(items, whom, strict=True)]
            for one, user in zip(given.own_items.tolist(), users["own_users"].tolist(), strict=True)
            for items, whom in [(given.candidate_items.tolist(), users["candidate_users"].tolist())]
        ]
    )
    padded = given._replace(present=torch.ones(50, dtype=torch.bool))
    for each in (given, padded):
        assert torch.equal(each.logits.negative.isneginf(), out)
        torch.testing.assert_close(SampledSoftmax().fused(each), SampledSoftmax()(given.logits))


@pytest.mark.parametrize("at_once", [1, 70, 10**6])
@pytest.mark.parametrize("loss", [SampledSoftmax(), FullSoftmax()], ids=repr)
def test_events_that_share_a_user_are_as_events_with_copies_of_it(monkeypatch, loss, at_once):
    """Against whole logits; and a user's own items are negatives of none of the user's events."""
    monkeypatch.setitem(fused_cross_entropy.LOGITS_AT_ONCE, "cpu", at_once)
    given = compared()
    rows = torch.randint(12, (50,)).sort().values.unique(return_inverse=True)[1]
    shared = given._replace(user=given.user[: rows.max() + 1].detach().requires_grad_(), rows=rows)
    mine = [set(given.own_items[rows == row].tolist()) for row in rows.tolist()]
    out = torch.tensor([[item in own for item in given.candidate_items.tolist()] for own in mine])
    negative = (shared.user[rows] @ given.candidate.T / given.temperature).masked_fill(
        out, -torch.inf
    )
    torch.testing.assert_close(shared.logits.negative, negative)
    one, other = loss.fused(shared), loss(shared.logits)
    torch.testing.assert_close(one, other)
    torch.testing.assert_close(
        torch.autograd.grad(one, shared[:4]), torch.autograd.grad(other, shared[:4])
    )


def test_a_whole_catalogue_leaves_each_events_own_item_out_by_its_code():
    given = compared()
    user, candidate, items = (
        given.user,
        torch.randn(20, 8, requires_grad=True),
        given.own_items.clamp(min=1),
    )
    whole = given._replace(
        candidate=candidate,
        own=candidate[items - 1],
        own_items=items,
        candidate_items=torch.arange(1, 21),
        whole=True,
    )
    one = FullSoftmax().fused(whole)
    other = torch.nn.functional.cross_entropy(user @ candidate.T / given.temperature, items - 1)
    torch.testing.assert_close(one, other)
    torch.testing.assert_close(
        torch.autograd.grad(one, (user, candidate)), torch.autograd.grad(other, (user, candidate))
    )


def test_mixed_precision_is_close():
    given = compared()
    with torch.autocast("cpu", torch.bfloat16):
        loss = SampledSoftmax().fused(given)
    assert loss.item() == pytest.approx(SampledSoftmax()(given.logits).item(), rel=0.01)
    loss.backward()
    assert given.user.grad.dtype == torch.float32


def test_an_event_without_any_other_candidate_costs_nothing():
    given = compared()
    alone = given._replace(
        candidate=given.own[:1], candidate_items=torch.tensor([3]), own_items=torch.full((50,), 3)
    )
    assert FullSoftmax().fused(alone).item() == 0
