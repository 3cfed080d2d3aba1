"""Every tower of the family, both sides: shapes, rows alone as in company, every input used, no
look ahead.
"""

import pytest
import torch

from dssm_core import families
from dssm_core.config import History, Member
from dssm_core.families import TOWERS

DIMS, WIDTH, LENGTH = [3, 1, 5], 4, 6


def tower(kind):
    torch.manual_seed(0)
    return families.build(TOWERS, Member(kind=kind))


def user_tower(kind):
    return tower(kind).user(History(length=LENGTH), WIDTH, DIMS, 4).eval()


def inputs(every, requires_grad=False):
    """Three users: a full history, a short one, none."""
    torch.manual_seed(1)
    held = torch.arange(LENGTH) < torch.tensor([LENGTH, 2, 0])[:, None]
    history = (torch.randn(3, LENGTH, WIDTH) * held[..., None]).requires_grad_(requires_grad)
    lead = (3, LENGTH) if every else (3,)
    return history, held, [torch.randn(*lead, dim, requires_grad=requires_grad) for dim in DIMS]


@pytest.mark.parametrize("kind", sorted(TOWERS))
def test_item_side_shape_and_row_independence(kind):
    module, fields = tower(kind).item(DIMS, 4).eval(), [torch.randn(6, dim) for dim in DIMS]
    out = module(fields)
    assert out.shape == (6, 4)
    torch.testing.assert_close(module([field[2:3] for field in fields]), out[2:3])


@pytest.mark.parametrize("kind", sorted(TOWERS))
def test_every_field_of_an_item_matters(kind):
    module, fields = (
        tower(kind).item(DIMS, 4).eval(),
        [torch.randn(2, dim, requires_grad=True) for dim in DIMS],
    )
    module(fields).square().sum().backward()
    assert all(field.grad is not None and field.grad.abs().sum() > 0 for field in fields)


@pytest.mark.parametrize("kind", sorted(TOWERS))
def test_a_user_alone_is_as_in_company_and_padding_is_nothing(kind):
    module = user_tower(kind)
    history, held, fields = inputs(every=False)
    out = module(history, held, fields, False)
    assert out.shape == (3, 4)
    assert out.isfinite().all()
    alone = module(history[1:2, :2], held[1:2, :2], [field[1:2] for field in fields], False)
    torch.testing.assert_close(alone, out[1:2])


@pytest.mark.parametrize("kind", sorted(TOWERS))
def test_every_place_is_what_its_prefix_alone_would_give(kind):
    """Training at every place equals serving each prefix, so no place can look ahead."""
    module = user_tower(kind)
    history, held, fields = inputs(every=True)
    every = module(history, held, fields, True)
    assert every.shape == (3, LENGTH, 4)
    for place in range(LENGTH):
        prefix = (
            history[:1, : place + 1],
            held[:1, : place + 1],
            [field[:1, place] for field in fields],
        )
        torch.testing.assert_close(every[:1, place], module(*prefix, False))


@pytest.mark.parametrize("kind", sorted(TOWERS))
def test_history_and_fields_of_a_user_matter(kind):
    history, held, fields = inputs(every=False, requires_grad=True)
    user_tower(kind)(history, held, fields, False).square().sum().backward()
    assert history.grad[0].abs().sum() > 0
    assert all(field.grad.abs().sum() > 0 for field in fields)


@pytest.mark.parametrize("kind", sorted(TOWERS))
def test_both_sides_train_to_finite_gradients(kind):
    module = user_tower(kind).train()
    history, held, fields = inputs(every=True, requires_grad=True)
    module(history, held, fields, True).square().sum().backward()
    assert all(p.grad.isfinite().all() for p in module.parameters() if p.grad is not None)
