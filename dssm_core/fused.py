"""Softmax cross-entropy against shared candidates without ever holding all logits: memory follows a chunk of events."""

from __future__ import annotations

import torch
from torch import Tensor

from dssm_core.logits import Comparison

LOGITS_AT_ONCE = {"cpu": 2_000_000, "cuda": 64_000_000}  # the CPU's stay in its cache


def softmax_cross_entropy(compared: Comparison, log_count: Tensor | None) -> Tensor:
    """Mean over events of -log of the own item's share, among itself and the shared candidates less their log_count.

    log_count: [C], nothing where None; a candidate that is the event's own item is left out. → [].
    Products are in bf16 inside autocast; the softmax is always in full precision.
    """
    kind = compared.user.device.type
    low = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else torch.float32
    given = (compared.user / compared.temperature, compared.own, compared.candidate, log_count)
    summed: Tensor = _Chunked.apply(*given, compared, low)  # type: ignore[no-untyped-call]
    return summed / len(compared.user)


class _Chunked(torch.autograd.Function):
    """The gradient is at hand while a chunk's logits are, so it is taken there (as in Liger Kernel, Hsu et al. 2024)."""

    @staticmethod
    def forward(ctx, user, own, candidate, log_count, compared, dtype) -> Tensor:  # type: ignore[no-untyped-def]
        positive = (user.float() * own.float()).sum(1, keepdim=True)
        users, candidates = user.to(dtype), candidate.to(dtype)
        share, grad_user = torch.empty_like(positive), torch.empty(user.shape, device=user.device)
        grad_candidate = torch.zeros(candidate.shape, device=user.device)
        loss, rows = torch.zeros((), device=user.device), max(1, LOGITS_AT_ONCE[user.device.type] // len(candidates))
        for first in range(0, len(users), rows):
            at = slice(first, first + rows)
            odds = _masked((users[at] @ candidates.T).float(), log_count, compared, at)
            highest = torch.maximum(odds.amax(1, keepdim=True), positive[at])
            odds.sub_(highest).exp_()
            own_odds = (positive[at] - highest).exp()
            total = odds.sum(1, keepdim=True) + own_odds
            loss += (total.log() - (positive[at] - highest)).sum()
            share[at] = own_odds / total - 1
            odds = odds.to(dtype)  # not divided by the total: that costs less after the products
            grad_user[at] = (odds @ candidates) / total
            grad_candidate += odds.T @ (user[at] / total).to(dtype)
        ctx.save_for_backward(user, own, share, grad_user, grad_candidate)
        return loss

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[no-untyped-def]
        user, own, share, grad_user, grad_candidate = ctx.saved_tensors
        return grad * (grad_user + share * own), grad * share * user, grad * grad_candidate, None, None, None


def _masked(logits: Tensor, log_count: Tensor | None, compared: Comparison, at: slice) -> Tensor:
    """Logits of the events `at` less log_count, -inf for what is no negative of theirs. logits: [b, C], changed."""
    if compared.whole:
        return logits.scatter_(1, compared.own_items[at, None] - 1, -torch.inf)
    logits = logits if log_count is None else logits.sub_(log_count)
    return logits.masked_fill_(compared.left_out(at), -torch.inf)
