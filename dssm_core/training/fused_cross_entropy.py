"""Softmax cross-entropy against shared candidates in chunks of users.

The logits of all events are never in memory at once.
"""

from __future__ import annotations

import torch
from torch import Tensor

from dssm_core.training.logits import BatchVectors

LOGITS_AT_ONCE = {"cpu": 2_000_000, "cuda": 64_000_000}  # on a CPU they stay in its cache


def softmax_cross_entropy(compared: BatchVectors, log_count: Tensor | None) -> Tensor:
    """Weighted mean over events of -log of the own item's share of the softmax. → [].

    The softmax is over the own item and the shared candidates, without a candidate that is one of
    the event's own items. log_count: [C], subtracted from the candidates' logits; None for nothing.
    Products are in bf16 inside autocast; the softmax is always in full precision.
    """
    kind = compared.user.device.type
    bf16 = torch.is_autocast_enabled(kind)
    dtype = torch.get_autocast_dtype(kind) if bf16 else torch.float32
    user = compared.user / compared.temperature
    total: Tensor = _ChunkedCrossEntropy.apply(  # type: ignore[no-untyped-call]
        user, compared.own, compared.candidate, log_count, compared, dtype
    )
    return total / compared.total_weight


class _ChunkedCrossEntropy(torch.autograd.Function):
    """Weighted sum of the cross-entropies of all events. The forward pass also computes the
    gradients, while a chunk's logits are in memory (as Liger Kernel does, Hsu et al. 2024).

    The logits of a user are computed once, even if several events share the user.
    """

    @staticmethod
    def forward(ctx, user, own, candidate, log_count, compared, dtype) -> Tensor:  # type: ignore[no-untyped-def]
        device = user.device
        user_of = compared.rows  # [n], the row of each event's user
        if user_of is None:
            user_of = torch.arange(len(user), device=device)
        positive = (user.float().index_select(0, user_of) * own.float()).sum(1)
        users = user.to(dtype)
        candidates = candidate.to(dtype)
        share = torch.empty_like(positive)
        grad_user = torch.empty(user.shape, device=device)
        grad_candidate = torch.zeros(candidate.shape, device=device)
        loss = torch.zeros((), device=device)
        step = max(1, LOGITS_AT_ONCE[device.type] // len(candidates))
        for first in range(0, len(users), step):
            at = slice(first, first + step)
            events, row = compared.events_of(at)
            odds = _masked((users[at] @ candidates.T).float(), log_count, compared, at)
            highest = odds.amax(1).scatter_reduce(0, row, positive[events], "amax")
            odds.sub_(highest[:, None]).exp_()
            above = positive[events] - highest[row]
            total = odds.sum(1)[row] + above.exp()
            loss += compared.weighted(total.log() - above, events).sum()
            share[events] = compared.weighted(above.exp() / total - 1, events)
            each = compared.weighted(1 / total, events)
            weight = torch.zeros_like(highest).index_add_(0, row, each)[:, None]
            odds = odds.to(dtype)  # weighting after the products is cheaper than weighting odds
            grad_user[at] = (odds @ candidates) * weight
            grad_candidate += odds.T @ (user[at] * weight).to(dtype)
        ctx.save_for_backward(user, own, share[:, None], grad_user, grad_candidate, user_of)
        return loss

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[no-untyped-def]
        user, own, share, grad_user, grad_candidate, user_of = ctx.saved_tensors
        grad_user = grad_user.index_add(0, user_of, (share * own).float())
        grad_own = grad * share * user.index_select(0, user_of)
        return grad * grad_user, grad_own, grad * grad_candidate, None, None, None


def _masked(logits: Tensor, log_count: Tensor | None, compared: BatchVectors, at: slice) -> Tensor:
    """Subtract log_count, and set candidates that are no negatives to -inf, in place.

    logits: [b, C] of the users in the rows `at`.
    """
    if compared.whole:
        events, row = compared.events_of(at)
        column = (compared.own_items[events] - 1).clamp(min=0)
        logits.view(-1).index_fill_(0, row * logits.shape[1] + column, -torch.inf)
        if compared.availability is None:
            return logits
        return logits.masked_fill_(compared.availability.missing(at), -torch.inf)
    logits = logits if log_count is None else logits.sub_(log_count)
    return compared.masked(logits, at)
