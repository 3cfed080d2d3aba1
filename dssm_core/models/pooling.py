"""Pooling of a history: variable length in, fixed length out.

A history is left-aligned: the oldest item first, then padding. Pools are causal: the output at a
position depends on that position and earlier ones, so that one pass trains every prefix of a
history.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from dssm_core.config import History


def newest(values: Tensor, present: Tensor) -> Tensor:
    """The value at the last present position of each row, at the first position if none is present.

    values: [B, L, E]; present: [B, L] → [B, E].
    """
    last = (present.sum(1) - 1).clamp(min=0)
    return values[torch.arange(len(values), device=values.device), last]


def lag_weighted(
    values: Tensor, present: Tensor, weights: Tensor, mean: bool, every: bool = True
) -> Tensor:
    """The sum over earlier positions of weights[lag] * value; divided by the sum of the weights if
    `mean`.

    values: [B, L, E]; present: [B, L]; weights: [L], by the number of positions back → [B, L, E]
    for each position if `every`, else [B, E] for the newest.
    """
    position = torch.arange(values.shape[1], device=values.device)
    at = position if every else present.sum(1, keepdim=True) - 1  # [L] or [B, 1]
    lag = at[:, None] - position if every else at - position  # [L, L] or [B, L]
    by_position = torch.where(lag >= 0, weights[lag.clamp(min=0)], 0.0).to(values.dtype)
    mask = present.to(values.dtype)
    if every:
        total = by_position @ (values * mask[..., None])
        weight = mask @ by_position.T
    else:
        total = torch.einsum("bl,ble->be", by_position * mask, values)
        weight = (by_position * mask).sum(1)
    return total / weight.clamp(min=1e-6)[..., None] if mean else total


def running_max(values: Tensor, present: Tensor) -> Tensor:
    """The maximum so far, by column; 0 before the first present position.

    values: [B, L, E]; present: [B, L] → [B, L, E].
    """
    maximum = values.masked_fill(~present[..., None], -torch.inf).cummax(1).values
    return maximum.masked_fill(maximum == -torch.inf, 0.0)


def running_attention(values: Tensor, present: Tensor, scores: Tensor) -> Tensor:
    """The mean of the values so far, weighted by exp(score).

    values: [B, L, E]; present, scores: [B, L] → [B, L, E].
    """
    # Not shifted by the maximum, as a softmax would be: the maximum may lie in the future.
    weights = (scores.float().clamp(-15, 15).exp() * present)[..., None]
    return running_sum(weights * values) / running_sum(weights).clamp(min=1e-9)


def running_sum(values: Tensor) -> Tensor:
    """The sum of the values so far. A GPU adds floats up in no fixed order, but multiplies in one.

    values: [B, L, E] → [B, L, E].
    """
    return sum_by_product(values) if values.is_cuda else values.cumsum(1)


def sum_by_product(values: Tensor) -> Tensor:
    """`running_sum` as a product with a triangle of ones, in full precision."""
    length = values.shape[1]
    earlier = torch.ones(length, length, device=values.device).tril()
    with torch.autocast(values.device.type, enabled=False):
        return earlier @ values.float()


class Pools(nn.Module):
    """All pools of features.history, side by side. `dims`: the width of each field."""

    def __init__(self, settings: History, width: int) -> None:
        super().__init__()
        self.kinds = settings.pools if settings.length else ()
        decays = torch.tensor(settings.decays, dtype=torch.float32)
        self.log_odds = nn.Parameter(
            torch.log(decays / (1 - decays)), requires_grad=settings.learn_decays
        )
        self.score = nn.Linear(width, 1) if "attention" in self.kinds else None
        self.dims = [width] * sum(len(decays) if kind == "decay" else 1 for kind in self.kinds)

    def forward(self, values: Tensor, present: Tensor, every: bool) -> list[Tensor]:
        """values: [B, L, E]; present: [B, L] → fields, [B, L, E] for each position if `every`, else
        [B, E] for the newest.
        """
        return [field for kind in self.kinds for field in self._pool(kind, values, present, every)]

    def _pool(self, kind: str, values: Tensor, present: Tensor, every: bool) -> list[Tensor]:
        age = torch.arange(values.shape[1], device=values.device)
        if kind in ("mean", "sum"):
            ones = torch.ones_like(age, dtype=values.dtype)
            return [lag_weighted(values, present, ones, kind == "mean", every)]
        if kind == "decay":
            decays = self.log_odds.sigmoid()
            return [lag_weighted(values, present, decay**age, True, every) for decay in decays]
        if kind == "max":
            running = running_max(values, present)
        elif kind == "attention" and self.score is not None:
            running = running_attention(values, present, self.score(values).squeeze(-1))
        else:
            running = values
        return [running if every else newest(running, present)]


def scan(keep: Tensor, new: Tensor) -> Tensor:
    """h[t] = keep[t] * h[t - 1] + new[t] with h[-1] = 0. keep, new: [B, L, E] → [B, L, E].

    On a GPU, log2(L) passes over the whole sequence (Hillis & Steele 1986). On a CPU, where a pass
    over memory costs more than L small steps in the cache, one position after the other.
    """
    states: Tensor = _Scan.apply(keep, new)  # type: ignore[no-untyped-call]
    return states


class _Scan(torch.autograd.Function):
    """The gradient of a linear recurrence is the same recurrence backwards (Martin & Cundy 2018),
    so only h is saved.
    """

    @staticmethod
    def forward(ctx, keep: Tensor, new: Tensor) -> Tensor:  # type: ignore[no-untyped-def]
        states = _recurrence(keep, new)
        ctx.save_for_backward(keep, states)
        return states

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[no-untyped-def]
        keep, states = ctx.saved_tensors
        following = torch.cat([keep[:, 1:], torch.zeros_like(keep[:, :1])], 1)
        grad_new = _recurrence(following.flip(1), grad.flip(1)).flip(1)
        before = torch.cat([torch.zeros_like(states[:, :1]), states[:, :-1]], 1)
        return grad_new * before, grad_new


def _recurrence(keep: Tensor, new: Tensor) -> Tensor:
    return by_doubling(keep, new) if new.is_cuda else by_step(keep, new)


def by_step(keep: Tensor, new: Tensor) -> Tensor:
    """`scan` without its gradient, one position after the other."""
    states = torch.empty_like(new, memory_format=torch.contiguous_format)
    states[:, 0] = new[:, 0]
    for t in range(1, new.shape[1]):
        torch.addcmul(new[:, t], keep[:, t], states[:, t - 1], out=states[:, t])
    return states


def by_doubling(keep: Tensor, new: Tensor) -> Tensor:
    """`scan` without its gradient; each pass reaches twice as far back as the one before."""
    keep = keep.clone()
    states = new.clone()
    for power in range(math.ceil(math.log2(max(2, new.shape[1])))):
        step = 2**power
        earlier = states[:, :-step].clone()
        states[:, step:] = torch.addcmul(states[:, step:], keep[:, step:], earlier)
        keep[:, step:] = keep[:, step:] * keep[:, :-step].clone()
    return states
