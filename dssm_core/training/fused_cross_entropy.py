"""Softmax cross-entropy against shared candidates without ever holding all logits: memory follows a
chunk of events.
"""

from __future__ import annotations

import torch
from torch import Tensor

from dssm_core.training.logits import Comparison

LOGITS_AT_ONCE = {"cpu": 2_000_000, "cuda": 64_000_000}  # the CPU's stay in its cache


def softmax_cross_entropy(compared: Comparison, log_count: Tensor | None) -> Tensor:
    """Mean over events of -log of the own item's share, among itself and the shared candidates less
    their log_count.

    log_count: [C], nothing where None; a candidate that is the event's own item is left out. → [].
    Products are in bf16 inside autocast; the softmax is always in full precision.
    """
    kind = compared.user.device.type
    low = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else torch.float32
    given = (compared.user / compared.temperature, compared.own, compared.candidate, log_count)
    summed: Tensor = _Chunked.apply(*given, compared, low)  # type: ignore[no-untyped-call]
    return summed / len(compared.own)


class _Chunked(torch.autograd.Function):
    """The gradient is at hand while a chunk's logits are, so it is taken there (as in Liger Kernel,
    Hsu et al. 2024).

    A user's logits are computed once, however many events share the user.
    """

    @staticmethod
    def forward(ctx, user, own, candidate, log_count, compared, dtype) -> Tensor:  # type: ignore[no-untyped-def]
        every, device = (
            torch.arange(len(user), device=user.device) if compared.rows is None else compared.rows,
            user.device,
        )
        positive = (user.float().index_select(0, every) * own.float()).sum(1)
        users, candidates = user.to(dtype), candidate.to(dtype)
        share, grad_user = torch.empty_like(positive), torch.empty(user.shape, device=device)
        grad_candidate = torch.zeros(candidate.shape, device=device)
        loss, step = (
            torch.zeros((), device=device),
            max(1, LOGITS_AT_ONCE[device.type] // len(candidates)),
        )
        for first in range(0, len(users), step):
            at = slice(first, first + step)
            events, row = compared.events_of(at)
            odds = _masked((users[at] @ candidates.T).float(), log_count, compared, at)
            highest = odds.amax(1).scatter_reduce(0, row, positive[events], "amax")
            odds.sub_(highest[:, None]).exp_()
            above = positive[events] - highest[row]
            total = odds.sum(1)[row] + above.exp()
            loss += (total.log() - above).sum()
            share[events] = above.exp() / total - 1
            weight = torch.zeros_like(highest).index_add_(0, row, 1 / total)[:, None]
            odds = odds.to(dtype)  # not weighted yet: that costs less after the products
            grad_user[at] = (odds @ candidates) * weight
            grad_candidate += odds.T @ (user[at] * weight).to(dtype)
        ctx.save_for_backward(user, own, share[:, None], grad_user, grad_candidate, every)
        return loss

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[no-untyped-def]
        user, own, share, grad_user, grad_candidate, every = ctx.saved_tensors
        grad_user = grad_user.index_add(0, every, (share * own).float())
        return (
            grad * grad_user,
            grad * share * user.index_select(0, every),
            grad * grad_candidate,
            None,
            None,
            None,
        )


def _masked(logits: Tensor, log_count: Tensor | None, compared: Comparison, at: slice) -> Tensor:
    """Logits of the users `at` less log_count, -inf for what is no negative of theirs. logits: [b,
    C], changed.
    """
    if compared.whole:
        events, row = compared.events_of(at)
        logits[row, compared.own_items[events] - 1] = -torch.inf
        return logits
    logits = logits if log_count is None else logits.sub_(log_count)
    return logits.masked_fill_(compared.left_out(at), -torch.inf)
