"""The full softmax of a large catalogue: which kernel computes it, and what it is given."""

import sys
from dataclasses import dataclass, replace
from types import ModuleType

import pytest
import torch
from torch.nn.functional import cross_entropy

from dssm_core.training import full_cross_entropy as module
from dssm_core.training.full_cross_entropy import (
    Ability,
    cut_cross_entropy,
    full_cross_entropy,
    obstacle_to_cutting,
)
from dssm_core.training.fused_cross_entropy import softmax_cross_entropy
from dssm_core.training.logits import Availability, BatchVectors

ITEMS, EVENTS, DIM = 40, 12, 8
ABLE = Ability(capability=(9, 0), bf16=True, deterministic=False, installed=True)


def batch(padding=0, **changes):
    torch.manual_seed(1)
    catalogue = torch.randn(ITEMS, DIM, requires_grad=True)
    user = torch.randn(EVENTS, DIM, requires_grad=True)
    own_items = torch.randint(1, ITEMS + 1, (EVENTS,))
    own_items[EVENTS - padding :] = 0
    zeros = torch.zeros(EVENTS)
    given = BatchVectors(
        user=user,
        own=catalogue[(own_items - 1).clamp(min=0)],
        candidate=catalogue,
        temperature=torch.tensor(0.5, requires_grad=True),
        own_items=own_items,
        candidate_items=torch.arange(1, ITEMS + 1),
        log_count_positive=zeros,
        log_count_negative=torch.zeros(ITEMS),
        catalogue=ITEMS,
        whole=True,
        present=own_items > 0 if padding else None,
    )
    return given._replace(**changes)


@pytest.fixture
def kernel(monkeypatch):
    """cut-cross-entropy in plain torch; it keeps what it is given."""
    given = []

    @dataclass
    class CCEParams:
        targets: torch.Tensor
        valids: torch.Tensor | None
        softcap: float | None
        reduction: str
        filter_eps: float | None
        shift: bool
        batch_shape: torch.Size

    def linear_cross_entropy_apply(e, c, params):
        given.append((e.dtype, c.is_contiguous(), params.filter_eps))
        assert params.valids is None
        assert params.batch_shape == params.targets.shape
        return cross_entropy(e.float() @ c.T, params.targets, reduction=params.reduction)

    package, cce, utils = (
        ModuleType(f"cut_cross_entropy{name}") for name in ("", ".cce", ".utils")
    )
    cce.CCEParams, cce.linear_cross_entropy_apply = CCEParams, linear_cross_entropy_apply
    utils._handle_eps = lambda eps, dtype: torch.finfo(dtype).eps / 32
    for made in (package, cce, utils):
        monkeypatch.setitem(sys.modules, made.__name__, made)
    return given


def gradients(loss, compared):
    return torch.autograd.grad(loss, [compared.user, compared.candidate, compared.temperature])


@pytest.mark.parametrize("padding", [0, 5])
def test_the_kernel_computes_the_loss_of_the_chunks(padding, kernel):
    compared = batch(padding)
    loss = cut_cross_entropy(compared)
    expected = softmax_cross_entropy(compared, None)
    torch.testing.assert_close(loss, expected, rtol=5e-3, atol=0)  # its users are in bf16
    for one, other in zip(gradients(loss, compared), gradients(expected, compared), strict=True):
        torch.testing.assert_close(one, other, rtol=0.05, atol=5e-3)
    assert kernel == [(torch.bfloat16, True, 2.0**-7 / 32)]


@pytest.mark.parametrize(
    ("changes", "compared", "obstacle"),
    [
        ({}, {}, None),
        ({"capability": (7, 5)}, {}, "compute capability 8.0"),
        ({"bf16": False}, {}, "set train.precision to auto or bf16"),
        ({"deterministic": True}, {}, "set train.deterministic to false"),
        ({"installed": False}, {}, r"pip install 'dssm\[gpu\]'"),
        ({}, {"rows": torch.arange(EVENTS)}, "candidates are left out"),
        ({}, {"availability": Availability(*[torch.zeros(1)] * 4)}, "candidates are left out"),
    ],
    ids=str,
)
def test_what_speaks_against_the_kernel_is_said(changes, compared, obstacle):
    said = obstacle_to_cutting(batch(**compared), replace(ABLE, **changes))
    assert (said is None) == (obstacle is None)
    if obstacle:
        assert obstacle.replace("\\", "") in said


@pytest.mark.parametrize(
    ("large", "ability", "cut"),
    [
        (ITEMS, ABLE, True),
        (ITEMS + 1, ABLE, False),
        (ITEMS, replace(ABLE, capability=None), False),
        (ITEMS, replace(ABLE, installed=False), False),
    ],
    ids=["large", "small", "on a CPU", "not installed"],
)
def test_the_catalogue_and_the_device_choose(large, ability, cut, kernel, monkeypatch, caplog):
    monkeypatch.setattr(module, "LARGE_CATALOGUE", large)
    monkeypatch.setattr(Ability, "of", classmethod(lambda cls, device: ability))
    module._say_once.cache_clear()
    compared = batch()
    with caplog.at_level("INFO"):
        losses = [full_cross_entropy(compared) for _ in range(3)]
    assert len(kernel) == 3 * cut
    expected = softmax_cross_entropy(compared, None)
    torch.testing.assert_close(losses[0], expected, rtol=5e-3 if cut else 0, atol=0)
    quiet = large > ITEMS or ability.capability is None
    assert len([entry for entry in caplog.records if "full softmax" in entry.message]) == (
        not quiet
    )


def test_a_process_on_a_cpu_is_not_able():
    ability = Ability.of(torch.device("cpu"))
    assert ability.capability is None
    assert not ability.bf16
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert Ability.of(torch.device("cpu")).bf16
