"""From embeddings to logits: temperature, log-Q correction, accidental-hit mask, as pure functions."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Logits(NamedTuple):
    """A batch's logits before any correction, and what the corrections need.

    log_count_*: log of how often a draw of C candidates is expected to give the item, log(C * q).
    """

    positive: Tensor  # [B]
    negative: Tensor  # [B, C], -inf where a candidate is the event's own positive
    log_count_positive: Tensor  # [B]
    log_count_negative: Tensor  # [C]


def similarity(user: Tensor, item: Tensor) -> Tensor:
    """Dot products in full precision, also inside mixed precision: ranks differ by less than bf16 can tell. → [B, N]."""
    with torch.autocast(user.device.type, enabled=False):
        return user.float() @ item.float().T


def logits(user: Tensor, item: Tensor, candidate: Tensor, temperature: Tensor) -> tuple[Tensor, Tensor]:
    """Similarities over temperature. user, item: [B, D]; candidate: [C, D] → positive [B], negative [B, C]."""
    return (user.float() * item.float()).sum(1) / temperature, similarity(user, candidate) / temperature


def mask_accidental_hits(negative: Tensor, positives: Tensor, candidates: Tensor) -> Tensor:
    """-inf where a candidate is the row's own positive. negative: [B, C]; positives: [B]; candidates: [C] codes."""
    return negative.masked_fill(positives[:, None] == candidates[None, :], -torch.inf)


def importance_weighted(batch: Logits) -> Logits:
    """Negatives minus log(C * q), so that their exponentials estimate the sum over the whole catalogue.

    Bengio & Senécal 2008. The positive is in the sum for certain, not by a draw, so it keeps its logit
    (Khrylchenko et al. 2025, "Correcting the LogQ Correction").
    """
    return batch._replace(negative=batch.negative - batch.log_count_negative)


def noise_contrastive(batch: Logits) -> Logits:
    """Positives and negatives minus log(C * q): the log-odds of data against noise (Gutmann & Hyvärinen 2010)."""
    return batch._replace(positive=batch.positive - batch.log_count_positive, negative=batch.negative - batch.log_count_negative)
