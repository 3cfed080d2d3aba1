"""Dropout against its definition and its expected moments."""

import pytest
import torch

from dssm_core.models.dropout import Dropout


@pytest.mark.parametrize("share", [0.1, 0.3, 0.5, 0.999])
def test_values_are_zero_or_scaled_and_the_share_is_right(share):
    torch.manual_seed(0)
    out = Dropout(share)(torch.full((301, 1001), 2.0))
    zero = out == 0
    assert zero.float().mean() == pytest.approx(share, abs=0.004)
    assert out[~zero].unique().tolist() == pytest.approx([2 / (1 - share)], rel=0.01)
    assert out.mean() == pytest.approx(2, abs=6 * 2 * (share / (1 - share) / out.numel()) ** 0.5)


def test_neighbours_are_zeroed_independently():
    """Four values share a random number."""
    torch.manual_seed(0)
    zero = (Dropout(0.5)(torch.ones(100_000, 4)) == 0).float()
    assert torch.corrcoef(zero.T).fill_diagonal_(0).abs().max() < 0.02


def test_the_gradient_is_that_of_the_kept_values():
    torch.manual_seed(0)
    values = torch.randn(7, 5, requires_grad=True)
    out = Dropout(0.25)(values)
    out.sum().backward()
    torch.testing.assert_close(values.grad, (out != 0) / 0.75)


def test_the_seed_decides():
    values = torch.ones(50)
    drawn = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        drawn.append(Dropout(0.5)(values))
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])


@pytest.mark.parametrize("module", [Dropout(0.0), Dropout(0.5).eval()])
def test_nothing_changes_without_a_share_or_outside_training(module):
    values = torch.randn(3, 2)
    assert torch.equal(module(values), values)


@pytest.mark.parametrize("shape", [(0,), (1,), (3, 1), (2, 3, 5)])
def test_any_shape_and_type(shape):
    for dtype in (torch.float32, torch.bfloat16):
        out = Dropout(0.5)(torch.ones(shape, dtype=dtype))
        assert out.shape == shape
        assert out.dtype == dtype
