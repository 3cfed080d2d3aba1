"""From vectors to logits: temperature, log-Q correction and accidental-hit mask."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from dssm_core.features.ragged import ranges


class Logits(NamedTuple):
    """A batch's logits before any correction, and what the corrections need.

    log_count_*: log(C * q), the log of how often a draw of C candidates is expected to hold the
    item; 0 if the candidates are the whole catalogue. catalogue: the number of items.
    """

    positive: Tensor  # [B]
    negative: Tensor  # [B, C], -inf where a candidate is left out
    log_count_positive: Tensor  # [B]
    log_count_negative: Tensor  # [C] for candidates shared by the batch, else [B, C]
    catalogue: int
    present: Tensor | None = None  # [B], which events are not padding; None if all
    candidates: Tensor | None = None  # [] or [B], number of candidates without padding
    weight: Tensor | None = None  # [B], weight of each event; None if all weigh 1

    def mean(self, values: Tensor) -> Tensor:
        """Weighted mean over events. values: [B] → []."""
        if self.present is None:
            return values.mean()
        total = total_weight(self.present, self.weight)
        return weighted(values, self.present, self.weight).sum() / total

    def mean_of_candidates(self, values: Tensor) -> Tensor:
        """Mean over each event's candidates. values: [B, C], 0 where left out → [B]."""
        return values.mean(1) if self.candidates is None else values.sum(1) / self.candidates

    def mean_of_pairs(self, values: Tensor) -> Tensor:
        """Mean over events and their candidates. values: [B, C], 0 where left out → []."""
        return values.mean() if self.present is None else self.mean(self.mean_of_candidates(values))


class Availability(NamedTuple):
    """When candidates are available, and the times of the events that they are compared with.

    A candidate that is not available at an event's time is no negative of it: it could not have
    been listed. The log-Q correction stays as it is. The candidate adds 0 to the sum over the
    candidates, so the others, each divided by the number of times that it is expected, C * q, still
    estimate the sum over the available items; this needs no distribution over these items alone.
    """

    since: Tensor  # [C] ms, or [n, C] if each event has its own candidates
    until: Tensor  # the same, not included
    first: Tensor  # [B] ms, the earliest event of each row of users; [n] for own candidates
    last: Tensor  # the same of the latest event

    def missing(self, at: slice) -> Tensor:
        """Which candidates are not available at all events of the rows `at`. → [b, C]."""
        since = self.since if self.since.dim() == 1 else self.since[at]
        until = self.until if self.until.dim() == 1 else self.until[at]
        return (since > self.first[at, None]) | (until <= self.last[at, None])


class BatchVectors(NamedTuple):
    """The vectors that a batch's logits are computed from: n events, their items and candidates.

    Items are codes; log_count_* as in `Logits`. rows: the user of each event if several events
    share a user, else None.
    """

    user: Tensor  # [n, D], or [B, D] if several events share a user
    own: Tensor  # [n, D], the events' own items
    candidate: Tensor  # [C, D], or [n, C, D] if each event has its own candidates; see `place`
    temperature: Tensor  # []
    own_items: Tensor  # [n]
    candidate_items: Tensor  # [C] or [n, C]
    log_count_positive: Tensor  # [n]
    log_count_negative: Tensor  # [C] or [n, C]
    catalogue: int
    whole: bool = False  # whether the candidates are all items, in the order of their codes
    own_users: Tensor | None = None  # [n] codes, if candidates are items of other events
    candidate_users: Tensor | None = None  # [C] codes of the candidates' users, -1 if drawn
    rows: Tensor | None = None  # [n] ascending rows of `user`
    availability: Availability | None = None  # None if all items are always available
    present: Tensor | None = None  # [n], which events are not padding; None if all
    weight: Tensor | None = None  # [n], weight of each event; None if all weigh 1
    place: Tensor | None = (
        None  # [n, C], the rows of `candidate` that are each event's own candidates
    )

    @property
    def total_weight(self) -> Tensor | int:
        """The sum of the weights of all events; without weights the number of events."""
        return len(self.own) if self.present is None else total_weight(self.present, self.weight)

    def weighted(self, values: Tensor, at: slice = slice(None)) -> Tensor:
        """Values of the events `at`, times their weights; 0 for padding. [e] → [e]."""
        if self.present is None:
            return values
        return weighted(values, self.present[at], None if self.weight is None else self.weight[at])

    def masked(self, logits: Tensor, at: slice = slice(None)) -> Tensor:
        """Set the logits [b, C] of candidates that are no negatives of the users in the rows `at`
        to -inf, in place. Returns them.

        These are padding, items that are not available, and a user's own items: a batch holds
        whole stretches of histories, so without this mask a user's other items would be negatives
        far too often. If events have candidates of their own, `at` are events instead of users.
        """
        if self._shared and (self.present is None or self.rows is not None):
            logits.view(-1).index_fill_(0, self._own_places(at), -torch.inf)
        else:  # also with padding, whose shapes must not depend on values
            logits.masked_fill_(self._own(at), -torch.inf)
        if self.availability is None:
            return logits
        return logits.masked_fill_(self.availability.missing(at), -torch.inf)

    @property
    def logits(self) -> Logits:
        """The logits of all events, without the candidates that are left out."""
        user, users = self.user, self.user
        if self.rows is not None:
            user = self.user.index_select(0, self.rows)
            users = self.user if self._shared else user
        scores = similarity(users, self.candidate)
        if self.place is not None:
            scores = scores.gather(1, self.place)
        negative = self.masked(scores / self.temperature)
        if self.rows is not None and self._shared:
            negative = negative.index_select(0, self.rows)
        return Logits(
            (user.float() * self.own.float()).sum(1) / self.temperature,
            negative,
            self.log_count_positive,
            self.log_count_negative,
            self.catalogue,
            self.present,
            None if self.present is None else (self.candidate_items > 0).sum(-1),
            self.weight,
        )

    def events_of(self, at: slice) -> tuple[slice, Tensor]:
        """The events of the users in the rows `at`: a slice of the n events, and for each of them
        the row of its user among `at`. → slice, [e].
        """
        if self.rows is None:
            return at, torch.arange(len(self.user[at]), device=self.user.device)
        first, last, _ = at.indices(len(self.user))
        begin, end = torch.searchsorted(self.rows, self.rows.new_tensor([first, last])).tolist()
        return slice(begin, end), self.rows[begin:end] - first

    @property
    def _shared(self) -> bool:
        """Whether all events have the same candidates."""
        return self.candidate_items.dim() == 1

    def _own(self, at: slice) -> Tensor:
        """Which candidates are a user's own items, or padding. → [b, C]."""
        candidates = self.candidate_items if self._shared else self.candidate_items[at]
        hits = self.own_items[at, None] == candidates
        if self.present is not None:
            hits |= candidates == 0
        if self.own_users is None or self.candidate_users is None:
            return hits
        return hits | (self.own_users[at, None] == self.candidate_users)

    def _own_places(self, at: slice) -> Tensor:
        """The places of a user's own items in the flattened [b, C] of shared candidates, some of
        them twice. → [p]. They are few, and faster to find than to compare all pairs.
        """
        events, row = self.events_of(at)
        found = [equal_pairs(self.own_items[events], self.candidate_items)]
        if self.own_users is not None and self.candidate_users is not None:
            found.append(equal_pairs(self.own_users[events], self.candidate_users))
        count = len(self.candidate_items)
        return torch.cat([row[event] * count + column for event, column in found])


def equal_pairs(left: Tensor, right: Tensor) -> tuple[Tensor, Tensor]:
    """All pairs of equal values. left: [n], right: [m] → their places, 2 x [p]."""
    ordered, place = right.sort()
    first = torch.searchsorted(ordered, left)
    last = torch.searchsorted(ordered, left, right=True)
    pair, at = ranges(first, last)
    return pair, place[at]


def weighted(values: Tensor, present: Tensor, weight: Tensor | None) -> Tensor:
    """Values of events times their weights, 0 for padding. All [e] → [e]."""
    return torch.where(present, values if weight is None else values * weight, 0)


def total_weight(present: Tensor, weight: Tensor | None) -> Tensor:
    """The sum of the weights of events, which a sum of `weighted` values is divided by. → [].

    It is positive also where no event counts, so that the mean is then 0.
    """
    if weight is None:
        return present.sum()
    total = weighted(weight, present, None).sum()
    return total.clamp(min=torch.finfo(total.dtype).tiny)


def similarity(user: Tensor, item: Tensor) -> Tensor:
    """Dot products in full precision, also inside autocast: bf16 is too coarse to rank items.

    user: [B, D]; item: [N, D] for all users, or [B, N, D] for each user → [B, N].
    """
    with torch.autocast(user.device.type, enabled=False):
        if item.dim() == 2:
            return user.float() @ item.float().T
        return torch.einsum("bd,bnd->bn", user.float(), item.float())


def importance_weighted(batch: Logits) -> Logits:
    """Subtract log(C * q) from the negatives, so that the sum of their exponentials estimates the
    sum over the whole catalogue (Bengio & Senécal 2008).

    The positive is not drawn: it is always in the sum, and keeps its logit (Khrylchenko et al.
    2025, "Correcting the LogQ Correction").
    """
    return batch._replace(negative=batch.negative - batch.log_count_negative)


def noise_contrastive(batch: Logits) -> Logits:
    """Subtract log(C * q) from positives and negatives: the log-odds of data against noise (Gutmann
    & Hyvärinen 2010).
    """
    return batch._replace(
        positive=batch.positive - batch.log_count_positive,
        negative=batch.negative - batch.log_count_negative,
    )
