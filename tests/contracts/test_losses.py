"""Every loss of the family: a finite scalar that falls when positives rise, with gradients,
whatever is masked.
"""

import pytest
import torch

from dssm_core import families
from dssm_core.config import Member
from dssm_core.families import LOSSES
from dssm_core.training.logits import Logits


def batch(lift: float) -> Logits:
    generator = torch.Generator().manual_seed(0)
    negative = torch.randn(4, 6, generator=generator)
    negative[0, 0] = -torch.inf
    return Logits(torch.full((4,), lift), negative, torch.zeros(4), torch.zeros(6), 100)


@pytest.mark.parametrize("kind", sorted(LOSSES))
def test_prefers_the_positive(kind):
    loss = families.build(LOSSES, Member(kind=kind))
    low, high = loss(batch(-1.0)), loss(batch(3.0))
    assert low.shape == high.shape == ()
    assert torch.isfinite(low)
    assert high < low


@pytest.mark.parametrize("kind", sorted(LOSSES))
def test_gradients_are_finite(kind):
    positive, negative = torch.zeros(4, requires_grad=True), torch.zeros(4, 6, requires_grad=True)
    masked = negative.masked_fill(torch.eye(4, 6, dtype=torch.bool), -torch.inf)
    families.build(LOSSES, Member(kind=kind))(
        Logits(positive, masked, torch.zeros(4), torch.zeros(6), 100)
    ).backward()
    assert positive.grad is not None
    assert (positive.grad < 0).all()
    assert negative.grad is not None
    assert torch.isfinite(negative.grad).all()
