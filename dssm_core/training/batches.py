"""Batches of training events, in one of three ways.

With item activity on, every event is a row: all events of a batch share one refresh, so that they
can share candidates, and its user is seen as of that refresh. With activity off nothing but the
order of a history matters: a batch is some stretches of histories, and every place of a stretch is
an event, trained toward what followed, in one pass. Where the order says nothing either
(train.target `rest`), a batch is some users, each with a random part of what they took as their
history and every other item as an event.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from dssm_core.config import Config
from dssm_core.features.events import Events, training_events
from dssm_core.features.inputs import (
    ColumnTable,
    UserInputs,
    sequence_inputs,
    user_inputs,
    users_as_of,
)
from dssm_core.features.interactions import Interactions
from dssm_core.features.ragged import ranges
from dssm_core.training.epoch_order import epoch_batches, filled, length_batches, shuffled_within


@dataclass(frozen=True)
class Batch:
    """A batch's users and its n events, all of one bucket (a place in the refreshes).

    places: [n] of each event's vector among the flattened [B * L] ones; rows: [n] of each event's
    user among the B, where several events share one. Neither where a user is an event's own.
    """

    inputs: UserInputs
    events: Events
    bucket: int
    places: Tensor | None = None
    rows: Tensor | None = None


class Examples(Protocol):
    """A log's training events in batches. `count`: how many events there are."""

    count: int

    def batches(self, size: int, seed: int) -> list[Tensor]:
        """Rows of each batch of one epoch, of about `size` events; the same seed gives the same."""
        ...

    def take(self, rows: Tensor, generator: torch.Generator) -> Batch:
        """The batch at `rows`."""
        ...


def examples(config: Config, log: Interactions, users: ColumnTable, times: Tensor) -> Examples:
    """How this config sees a log. times: [buckets] ms, see prepare.bucket_times."""
    if config.features.activity.enabled:
        return EventExamples(config, log, users, times)
    return (
        UserExamples(config, log, users)
        if config.train.target == "rest"
        else SequenceExamples(config, log, users)
    )


class EventExamples:
    """An event a row, as of its refresh."""

    def __init__(
        self, config: Config, log: Interactions, users: ColumnTable, times: Tensor
    ) -> None:
        self.features, self.log, self.users = config.features, log, users
        self.events = training_events(log, times.to(log.time.device))
        self.buckets = self.events.bucket.cpu()
        self.count = len(self.buckets)

    def batches(self, size: int, seed: int) -> list[Tensor]:
        """See Examples."""
        return epoch_batches(self.buckets, size, seed)

    def take(self, rows: Tensor, generator: torch.Generator) -> Batch:
        """See Examples."""
        events = Events(*(part[rows.to(part.device)] for part in vars(self.events).values()))
        inputs = users_as_of(self.log, self.users, events.user, events.as_of, self.features)
        return Batch(inputs, events, int(self.buckets[rows[0]]))


class SequenceExamples:
    """Stretches of histories of at most features.history.length places; long histories are cut into
    several.

    Each stretch but a user's first begins with the last event of the one before, so that every
    event but the first is learned toward once.
    """

    def __init__(self, config: Config, log: Interactions, users: ColumnTable) -> None:
        self.log, self.users, self.future = log, users, config.train.target == "future"
        self.length = config.features.history.length
        self.order, ptr = log.sequences()
        self.begin, self.end = stretches(ptr, max(1, self.length))
        self.lengths = (self.end - self.begin - 1).cpu()
        self.count = int(self.lengths.sum())

    def batches(self, size: int, seed: int) -> list[Tensor]:
        """See Examples."""
        return length_batches(self.lengths, size, seed)

    def take(self, rows: Tensor, generator: torch.Generator) -> Batch:
        """See Examples."""
        rows = rows.to(self.order.device)
        begin, last = self.begin[rows, None], self.end[rows, None] - 1
        place = begin + torch.arange(
            int(self.lengths[rows.cpu()].max()), device=begin.device
        )  # [B, L]
        held = place < last
        seen = self.order[torch.minimum(place, last)]
        places = held.flatten().nonzero().squeeze(1)
        ahead = place + 1
        if self.future:
            ahead = (
                ahead
                + (
                    torch.rand(place.shape, generator=generator, device=place.device)
                    * (last - place)
                ).long()
            )
        toward = self.order[torch.minimum(ahead, last)].flatten()[places]
        history = (
            torch.where(held, self.log.item[seen], 0) if self.length else torch.zeros_like(place)
        )
        inputs = sequence_inputs(
            self.users, self.log.user[seen[:, 0]], history, self.log.context[seen]
        )
        return Batch(inputs, timeless(self.log, toward), 0, places)


class UserExamples:
    """Whole users, whose vector is trained toward all that is not in their history at once: the
    order does not count.

    A random share of a user's items is the history, so that it never holds what is learned toward,
    as in denoising autoencoders (Liang et al. 2018). With features.history.length 0 every item is
    learned toward.
    """

    def __init__(self, config: Config, log: Interactions, users: ColumnTable) -> None:
        self.log, self.users, self.length = log, users, config.features.history.length
        self.order, self.ptr = log.sequences()
        lengths = self.ptr.diff()
        self.known = (
            (lengths > (1 if self.length else 0)).nonzero().squeeze(1)
        )  # a history leaves an item to learn
        self.lengths = lengths[self.known].cpu()
        self.count = int(self.lengths.sum())

    def batches(self, size: int, seed: int) -> list[Tensor]:
        """See Examples."""
        order = torch.randperm(len(self.lengths), generator=torch.Generator().manual_seed(seed))
        return filled(order, self.lengths, size)

    def take(self, rows: Tensor, generator: torch.Generator) -> Batch:
        """See Examples."""
        user = self.known[rows.to(self.known.device)]
        row, at = ranges(self.ptr[user], self.ptr[user + 1])
        taken = self.order[at]
        shown = random_part(row, len(user), self.length, generator)
        history = torch.zeros(len(user), max(1, self.length), dtype=torch.int64, device=user.device)
        held = shown >= 0
        history[row[held], shown[held]] = self.log.item[taken[held]]
        context = self.log.context[
            self.order[self.ptr[user]]
        ]  # of no columns: config.py refuses them
        inputs = user_inputs(self.users, user, history, context)
        return Batch(inputs, timeless(self.log, taken[~held]), 0, rows=row[~held])


def timeless(log: Interactions, rows: Tensor) -> Events:
    """The log's rows [n] as events of the only bucket there is without item activity."""
    return Events(log.user[rows], log.item[rows], torch.zeros_like(rows), log.time[rows])


def random_part(row: Tensor, users: int, length: int, generator: torch.Generator) -> Tensor:
    """The place of each of the users' items in a random part of them, -1 for the rest, which is
    never empty.

    row: [n] ascending, whose item it is; at most `length` of a user's are in the part; its share is
    uniform in [0, 1).
    """
    if not length:
        return torch.full_like(row, -1)
    counts, nth = row.bincount(minlength=users), torch.empty_like(row)
    nth[shuffled_within(row, generator)] = ranges(torch.zeros_like(counts), counts)[1]
    size = (
        (torch.rand(users, generator=generator, device=row.device) * counts)
        .long()
        .clamp(max=length)
    )
    return torch.where(nth < size[row], nth, -1)


def stretches(ptr: Tensor, length: int) -> tuple[Tensor, Tensor]:
    """Where to cut every user's events, the newest stretch whole: `length` + 1 events at most, 2 at
    least.

    ptr: [users + 1], where each user's events begin → begin, end: 2 x [stretches].
    """
    pieces = ((ptr.diff() - 1).clamp(min=0) + length - 1) // length
    user, nth = ranges(torch.zeros_like(pieces), pieces)
    end = ptr[1:][user] - nth * length
    return torch.maximum(ptr[:-1][user], end - length - 1), end
