"""Candidates that each event has for itself: by scores of distinct items as by vectors."""

import pytest
import torch

from dssm_core.features.shapes import distinct
from dssm_core.training.logits import BatchVectors
from dssm_core.training.objective import _of_events


def case(n, count, items, dim):
    """Vectors of items, and the codes of events and of their candidates."""
    generator = torch.Generator().manual_seed(0)
    table = torch.randn(items, dim, generator=generator).requires_grad_()
    users = torch.randn(n, dim, generator=generator).requires_grad_()
    codes = torch.randint(1, items, (n + n * count,), generator=generator)
    return table, users, codes[:n], codes[n:].view(n, count)


def result(table, users, own_items, candidates, by_hand):
    """Logits, and their gradients of the table and of the users."""
    codes = torch.cat([own_items, candidates.flatten()])
    values, row = distinct(codes, len(table))
    own_row, candidate_row = row[: len(own_items)], row[len(own_items) :].view_as(candidates)
    own, candidate, place = _of_events(table[values], own_row, candidate_row)
    if by_hand:
        own, candidate, place = table[own_items], table[candidates], None
    logits = BatchVectors(
        user=users,
        own=own,
        candidate=candidate,
        temperature=torch.tensor(2.0),
        own_items=own_items,
        candidate_items=candidates,
        log_count_positive=torch.zeros(len(users)),
        log_count_negative=torch.zeros(candidates.shape),
        catalogue=len(table) - 1,
        place=place,
    ).logits
    loss = (logits.negative.exp().sum(1) - logits.positive).sum()
    gradients = torch.autograd.grad(loss, [table, users])
    return [logits.positive, logits.negative, *gradients], place


@pytest.mark.parametrize(
    ("shape", "by_place"), [((7, 20, 30, 4), True), ((7, 2, 200, 4), False), ((1, 1, 2, 1), True)]
)
def test_scores_by_place_are_those_of_the_vectors(shape, by_place):
    got, place = result(*case(*shape), by_hand=False)
    wanted, _ = result(*case(*shape), by_hand=True)
    assert (place is not None) == by_place
    torch.testing.assert_close(got, wanted)


@pytest.mark.parametrize("most", [6, 60, 6000])
def test_distinct_codes_are_those_of_unique(most):
    generator = torch.Generator().manual_seed(most)
    codes = torch.randint(0, most, (10, 30), generator=generator)
    values, place = distinct(codes, most)
    wanted, of = codes.unique(return_inverse=True)
    assert torch.equal(values, wanted)
    assert torch.equal(place, of)
