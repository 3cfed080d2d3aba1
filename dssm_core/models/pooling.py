"""Pools of a history: variable-length in, fixed-length out, as of the newest place or as of every
place at once.

A history is left-aligned: oldest first, then padding. A pool is causal: what it says at a place
depends on that place and those before it, so that training can learn from every prefix of a history
in one pass.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from dssm_core.config import History


def newest(values: Tensor, held: Tensor) -> Tensor:
    """The value at each row's last held place (the first where none is). values: [B, L, E]; held:
    [B, L] → [B, E].
    """
    last = (held.sum(1) - 1).clamp(min=0)
    return values[torch.arange(len(values), device=values.device), last]


def lag_weighted(
    values: Tensor, held: Tensor, weights: Tensor, mean: bool, every: bool = True
) -> Tensor:
    """The sum over the past of weights[lag] * value, over the sum of weights for a mean.

    values: [B, L, E]; held: [B, L]; weights: [L], by how many places back → [B, L, E] at every
    place, else [B, E].
    """
    place = torch.arange(values.shape[1], device=values.device)
    at = place if every else held.sum(1, keepdim=True) - 1  # [L] or [B, 1]
    lag = at[:, None] - place if every else at - place  # [L, L] or [B, L]
    by_place = torch.where(lag >= 0, weights[lag.clamp(min=0)], 0.0).to(values.dtype)
    present = held.to(values.dtype)
    if every:
        total, weight = by_place @ (values * present[..., None]), present @ by_place.T
    else:
        total, weight = (
            torch.einsum("bl,ble->be", by_place * present, values),
            (by_place * present).sum(1),
        )
    return total / weight.clamp(min=1e-6)[..., None] if mean else total


def running_max(values: Tensor, held: Tensor) -> Tensor:
    """The largest so far, by column; 0 where nothing is held yet. values: [B, L, E]; held: [B, L] →
    [B, L, E].
    """
    largest = values.masked_fill(~held[..., None], -torch.inf).cummax(1).values
    return largest.masked_fill(largest == -torch.inf, 0.0)


def running_attention(values: Tensor, held: Tensor, scores: Tensor) -> Tensor:
    """Mean of the values so far, weighted by exp(score). values: [B, L, E]; held, scores: [B, L] →
    [B, L, E].
    """
    weights = (scores.float().clamp(-15, 15).exp() * held)[
        ..., None
    ]  # no shift by the largest: it may lie in the future
    return (weights * values).cumsum(1) / weights.cumsum(1).clamp(min=1e-9)


class Pools(nn.Module):
    """Every pool of config.features.history, side by side. `dims`: the width of each field it
    gives.
    """

    def __init__(self, settings: History, width: int) -> None:
        super().__init__()
        self.kinds = settings.pools if settings.length else ()
        decays = torch.tensor(settings.decays, dtype=torch.float32)
        self.log_odds = nn.Parameter(
            torch.log(decays / (1 - decays)), requires_grad=settings.learn_decays
        )
        self.score = nn.Linear(width, 1) if "attention" in self.kinds else None
        self.dims = [width] * sum(len(decays) if kind == "decay" else 1 for kind in self.kinds)

    def forward(self, values: Tensor, held: Tensor, every: bool) -> list[Tensor]:
        """values: [B, L, E]; held: [B, L] → fields, each [B, L, E] at every place, else [B, E] at
        the newest.
        """
        return [field for kind in self.kinds for field in self._pool(kind, values, held, every)]

    def _pool(self, kind: str, values: Tensor, held: Tensor, every: bool) -> list[Tensor]:
        age = torch.arange(values.shape[1], device=values.device)
        if kind in ("mean", "sum"):
            return [
                lag_weighted(
                    values, held, torch.ones_like(age, dtype=values.dtype), kind == "mean", every
                )
            ]
        if kind == "decay":
            return [
                lag_weighted(values, held, decay**age, True, every)
                for decay in self.log_odds.sigmoid()
            ]
        if kind == "max":
            running = running_max(values, held)
        elif kind == "attention" and self.score is not None:
            running = running_attention(values, held, self.score(values).squeeze(-1))
        else:
            running = values
        return [running if every else newest(running, held)]


def scan(keep: Tensor, new: Tensor) -> Tensor:
    """h[t] = keep[t] * h[t - 1] + new[t] with h[-1] = 0. keep, new: [B, L, E] → [B, L, E].

    On a GPU log2(L) passes over the whole sequence (Hillis & Steele 1986); on a CPU, where a pass
    over memory costs more than the L small steps that stay in its cache, step by step.
    """
    states: Tensor = _Scan.apply(keep, new)  # type: ignore[no-untyped-call]
    return states


class _Scan(torch.autograd.Function):
    """The gradient of a linear recurrence is the same recurrence backwards (Martin & Cundy 2018):
    nothing but h is kept.
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
    """`scan` without its gradient, one place after the other."""
    states = torch.empty_like(new, memory_format=torch.contiguous_format)
    states[:, 0] = new[:, 0]
    for place in range(1, new.shape[1]):
        torch.addcmul(new[:, place], keep[:, place], states[:, place - 1], out=states[:, place])
    return states


def by_doubling(keep: Tensor, new: Tensor) -> Tensor:
    """`scan` without its gradient, each pass reaching twice as far back."""
    keep, states = keep.clone(), new.clone()
    for power in range(math.ceil(math.log2(max(2, new.shape[1])))):
        step = 2**power
        states[:, step:] = torch.addcmul(
            states[:, step:], keep[:, step:], states[:, :-step].clone()
        )
        keep[:, step:] = keep[:, step:] * keep[:, :-step].clone()
    return states
