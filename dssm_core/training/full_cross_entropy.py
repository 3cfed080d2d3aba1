"""Softmax cross-entropy over the whole catalogue: in chunks, or by one kernel where the catalogue
is large.

The kernel is cut-cross-entropy (Wijmans et al. 2025), the extra `gpu`. It never writes logits to
memory. It differs from the chunks in three ways: parts of the gradient below bf16's resolution are
left out, gradients are added up in bf16, and in no fixed order. So it is not used if two runs of
one seed must have the same weights (train.deterministic).
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec

import torch
from torch import Tensor

from dssm_core.training.fused_cross_entropy import softmax_cross_entropy
from dssm_core.training.logits import BatchVectors

log = logging.getLogger(__name__)

LARGE_CATALOGUE = 100_000  # items; below it the chunks are as fast (docs/benchmarks.md)
AMPERE = (8, 0)  # the first GPUs that the kernel supports


@dataclass(frozen=True)
class Ability:
    """What the choice of the kernel depends on, beside the batch. capability: of the GPU, None
    without one. bf16: whether products are in bf16. installed: whether the extra `gpu` is.
    """

    capability: tuple[int, int] | None
    bf16: bool
    deterministic: bool
    installed: bool

    @classmethod
    def of(cls, device: torch.device) -> Ability:
        """Of this process on a device."""
        kind = device.type
        return cls(
            torch.cuda.get_device_capability(device) if kind == "cuda" else None,
            torch.is_autocast_enabled(kind) and torch.get_autocast_dtype(kind) == torch.bfloat16,
            torch.are_deterministic_algorithms_enabled(),
            _installed(),
        )


def full_cross_entropy(compared: BatchVectors) -> Tensor:
    """Mean over events of -log of the own item's share of the softmax over all items. → [].

    The candidates are all items in the order of their codes.
    """
    ability = Ability.of(compared.user.device)
    items = len(compared.candidate)
    if items < LARGE_CATALOGUE or ability.capability is None:
        return softmax_cross_entropy(compared, None)
    obstacle = obstacle_to_cutting(compared, ability)
    if obstacle:
        _say_once(f"the full softmax over {items:,} items is computed in chunks: {obstacle}")
        return softmax_cross_entropy(compared, None)
    _say_once(
        f"the full softmax over {items:,} items is computed by cut-cross-entropy, which leaves out"
        " gradients below bf16's resolution"
    )
    return cut_cross_entropy(compared)


def obstacle_to_cutting(compared: BatchVectors, ability: Ability) -> str | None:
    """Why the kernel is not used for a large catalogue on a GPU, and what to change if anything."""
    if ability.capability is None or ability.capability < AMPERE:
        return "cut-cross-entropy needs a GPU of compute capability 8.0 or newer"
    if compared.rows is not None or compared.availability is not None:
        return "candidates are left out, which cut-cross-entropy cannot do"
    if not ability.bf16:
        return "cut-cross-entropy computes in bf16: set train.precision to auto or bf16"
    if ability.deterministic:
        return (
            "cut-cross-entropy adds gradients up in no fixed order. If two runs of a seed may"
            " differ, set train.deterministic to false: it was five times faster at a million items"
        )
    if not ability.installed:
        return (
            "cut-cross-entropy is not installed: pip install 'dssm[gpu]'. It was five times faster"
            " at a million items"
        )
    return None


def cut_cross_entropy(compared: BatchVectors) -> Tensor:
    """`full_cross_entropy` by the kernel, for a user vector for each event. → []."""
    # The public function looks for ignored targets with `nonzero`, for which the CPU must wait.
    from cut_cross_entropy.cce import CCEParams, linear_cross_entropy_apply
    from cut_cross_entropy.utils import _handle_eps

    user = (compared.user / compared.temperature).to(torch.bfloat16).contiguous()
    target = (compared.own_items - 1).clamp(min=0)  # padding has item 0
    params = CCEParams(
        targets=target,
        valids=None,
        softcap=None,
        reduction="none",
        filter_eps=_handle_eps("auto", user.dtype),
        shift=False,
        batch_shape=target.shape,
    )
    each: Tensor = linear_cross_entropy_apply(user, compared.candidate.contiguous(), params).float()
    if compared.present is None:
        return each.mean()
    return compared.weighted(each).sum() / compared.total_weight


def _installed() -> bool:
    return find_spec("cut_cross_entropy") is not None and find_spec("triton") is not None


@cache
def _say_once(sentence: str) -> None:
    log.info("%s", sentence)
