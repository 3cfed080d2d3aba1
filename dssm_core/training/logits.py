"""From embeddings to logits: temperature, log-Q correction, accidental-hit mask, as pure functions."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from dssm_core.features.ragged import ranges


class Logits(NamedTuple):
    """A batch's logits before any correction, and what the corrections need.

    log_count_*: log of how often a draw of C candidates is expected to give the item, log(C * q);
    zeros where the candidates are the whole catalogue. catalogue: how many items there are.
    """

    positive: Tensor  # [B]
    negative: Tensor  # [B, C], -inf where a candidate is the event's own positive
    log_count_positive: Tensor  # [B]
    log_count_negative: (
        Tensor  # [C] for candidates that the batch shares, [B, C] for each event's own
    )
    catalogue: int


class Comparison(NamedTuple):
    """A batch's n events, their own items and the candidates, as vectors: all that logits are made
    of.

    items are codes; log_count_* as in Logits. rows: the user of each event; where it is None, each
    event has its own.
    """

    user: Tensor  # [n, D], or [B, D] where several events share a user
    own: Tensor  # [n, D]
    candidate: Tensor  # [C, D], or [n, C, D] where each event has its own
    temperature: Tensor  # []
    own_items: Tensor  # [n]
    candidate_items: Tensor  # [C] or [n, C]
    log_count_positive: Tensor  # [n]
    log_count_negative: Tensor  # [C] or [n, C]
    catalogue: int
    whole: bool = False  # the candidates are every item, in the order of their codes
    own_users: Tensor | None = None  # [n] codes, where candidates are other events' items
    candidate_users: Tensor | None = (
        None  # [C] codes of the users whose items they are, -1 for a drawn item
    )
    rows: Tensor | None = None  # [n] ascending places in `user`

    def left_out(self, at: slice) -> Tensor:
        """Candidates that are no negatives of the users at the rows `at`: their own items, and what
        they took in the batch.

        A batch holds whole stretches of histories: without this a user's other items would be drawn
        far too often. → [b, C]. Where events have candidates of their own, `at` are events.
        """
        if self.rows is not None and self.candidate_items.dim() == 1:
            return self._own_among_shared(at)
        hits = self.own_items[at, None] == (
            self.candidate_items if self.candidate_items.dim() == 1 else self.candidate_items[at]
        )
        if self.own_users is None or self.candidate_users is None:
            return hits
        return hits | (self.own_users[at, None] == self.candidate_users)

    @property
    def logits(self) -> Logits:
        """Each event's own item and its candidates, the own item masked among them."""
        user, left_out = self.user, self.left_out(slice(None))
        if self.rows is not None:
            user = user.index_select(0, self.rows)
            left_out = left_out[self.rows] if self.candidate_items.dim() == 1 else left_out
        positive, negative = logits(user, self.own, self.candidate, self.temperature)
        negative = negative.masked_fill(left_out, -torch.inf)
        return Logits(
            positive, negative, self.log_count_positive, self.log_count_negative, self.catalogue
        )

    def events_of(self, at: slice) -> tuple[slice, Tensor]:
        """The events of the users at the rows `at`, and the place of each one's user in it. → a
        slice of n, [e].
        """
        if self.rows is None:
            return at, torch.arange(len(self.user[at]), device=self.user.device)
        first, last, _ = at.indices(len(self.user))
        begin, end = torch.searchsorted(self.rows, self.rows.new_tensor([first, last])).tolist()
        return slice(begin, end), self.rows[begin:end] - first

    def _own_among_shared(self, at: slice) -> Tensor:
        """Where the shared candidates are items of a row's own events. → [b, C]."""
        events, row = self.events_of(at)
        ordered, place = self.candidate_items.sort()
        first, last = (
            torch.searchsorted(ordered, self.own_items[events], right=right)
            for right in (False, True)
        )
        event, found = ranges(first, last)
        hits = torch.zeros(len(self.user[at]), len(ordered), dtype=torch.bool, device=row.device)
        hits[row[event], place[found]] = True
        return hits


def similarity(user: Tensor, item: Tensor) -> Tensor:
    """Dot products in full precision, also inside mixed precision: ranks differ by less than bf16
    can tell.

    user: [B, D]; item: [N, D], the same for all, or [B, N, D], each user's own → [B, N].
    """
    with torch.autocast(user.device.type, enabled=False):
        if item.dim() == 2:
            return user.float() @ item.float().T
        return torch.einsum("bd,bnd->bn", user.float(), item.float())


def logits(
    user: Tensor, item: Tensor, candidate: Tensor, temperature: Tensor
) -> tuple[Tensor, Tensor]:
    """Similarities over temperature. user, item: [B, D]; candidate: [C, D] or [B, C, D] → positive
    [B], negative [B, C].
    """
    return (user.float() * item.float()).sum(1) / temperature, similarity(
        user, candidate
    ) / temperature


def importance_weighted(batch: Logits) -> Logits:
    """Negatives minus log(C * q), so that their exponentials estimate the sum over the whole
    catalogue.

    Bengio & Senécal 2008. The positive is in the sum for certain, not by a draw, so it keeps its
    logit (Khrylchenko et al. 2025, "Correcting the LogQ Correction").
    """
    return batch._replace(negative=batch.negative - batch.log_count_negative)


def noise_contrastive(batch: Logits) -> Logits:
    """Positives and negatives minus log(C * q): the log-odds of data against noise (Gutmann &
    Hyvärinen 2010).
    """
    return batch._replace(
        positive=batch.positive - batch.log_count_positive,
        negative=batch.negative - batch.log_count_negative,
    )
