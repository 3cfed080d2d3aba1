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
    user, taken = compared.user / compared.temperature, torch.zeros(len(compared.candidate), device=compared.user.device)
    given = (user, compared.own, compared.candidate, taken if log_count is None else log_count)
    summed: Tensor = _Chunked.apply(*given, compared.own_items, compared.candidate_items, low)  # type: ignore[no-untyped-call]
    return summed / len(user)


class _Chunked(torch.autograd.Function):
    """The gradient is at hand while a chunk's logits are, so it is taken there (as in Liger Kernel, Hsu et al. 2024)."""

    @staticmethod
    def forward(ctx, user, own, candidate, log_count, target, codes, dtype) -> Tensor:  # type: ignore[no-untyped-def]
        positive = (user.float() * own.float()).sum(1, keepdim=True)
        users, candidates = user.to(dtype), candidate.to(dtype)
        share = torch.empty_like(positive)
        grad_user, grad_candidate = torch.empty_like(users), torch.zeros_like(candidate, dtype=torch.float32)
        loss, rows = torch.zeros((), device=user.device), max(1, LOGITS_AT_ONCE[user.device.type] // len(codes))
        for first in range(0, len(users), rows):
            at = slice(first, first + rows)
            logits = (users[at] @ candidates.T).float().sub_(log_count)
            logits.masked_fill_(target[at, None] == codes, -torch.inf)
            total = torch.logaddexp(positive[at], logits.logsumexp(1, keepdim=True))
            loss += (total - positive[at]).sum()
            share[at] = (positive[at] - total).exp() - 1
            shares = logits.sub_(total).exp_().to(dtype)
            torch.mm(shares, candidates, out=grad_user[at])
            grad_candidate += shares.T @ users[at]
        ctx.save_for_backward(user, own, share, grad_user, grad_candidate)
        return loss

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[no-untyped-def]
        user, own, share, grad_user, grad_candidate = ctx.saved_tensors
        to_user, to_own = grad_user.to(user.dtype) + share * own, share * user
        return grad * to_user, grad * to_own, grad * grad_candidate, None, None, None, None
