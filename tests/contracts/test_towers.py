"""Every tower of the family: fields in, one vector out, every field used, the same for a row whatever the batch."""

import pytest
import torch

from dssm_core import families
from dssm_core.config import Member
from dssm_core.towers import TOWERS

DIMS = [3, 1, 5]


def tower(kind):
    torch.manual_seed(0)
    return families.build(TOWERS, Member(kind=kind)).build(DIMS, 4).eval()


@pytest.mark.parametrize("kind", sorted(TOWERS))
def test_shape_and_row_independence(kind):
    module, fields = tower(kind), [torch.randn(6, dim) for dim in DIMS]
    out = module(fields)
    assert out.shape == (6, 4)
    torch.testing.assert_close(module([field[2:3] for field in fields]), out[2:3])


@pytest.mark.parametrize("kind", sorted(TOWERS))
def test_every_field_matters(kind):
    module, fields = tower(kind), [torch.randn(2, dim, requires_grad=True) for dim in DIMS]
    module(fields).square().sum().backward()
    assert all(field.grad is not None and field.grad.abs().sum() > 0 for field in fields)
