"""Batches of training events, in one of three ways.

- `EventExamples` (item activity on): each event is a row, and its user is embedded as of the
  event's refresh. All events of a batch have the same refresh, so that they can share candidates.
- `SequenceExamples` (item activity off): only the order of a history matters. A batch holds
  stretches of histories, and each position of a stretch is an event whose target comes later, so
  that one pass trains all positions.
- `UserExamples` (train.target `rest`): not even the order matters. A batch holds users, each with a
  random part of their items as the history, and each other item as an event.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar, Protocol

import torch
from torch import Tensor
from torch.nn.functional import pad

from dssm_core.config import Config
from dssm_core.features.events import (
    FIRST_OF_USER,
    NO_WEIGHT,
    ONLY_ONE,
    Events,
    left_out,
    training_events,
)
from dssm_core.features.inputs import (
    ColumnTable,
    UserInputs,
    sequence_inputs,
    user_inputs,
    users_as_of,
)
from dssm_core.features.interactions import Interactions
from dssm_core.features.ragged import ranges
from dssm_core.features.shapes import rounded_up
from dssm_core.training.epoch_order import (
    Rows,
    epoch_batches,
    filled,
    length_batches,
    shuffled_within,
    staged,
)


@dataclass(frozen=True)
class Batch:
    """The users of a batch, and its n events, all of the same refresh.

    Events of item 0 do not count: they are padding, or of weight 0. bucket: [1], the number of the
    refresh. positions: [n], the row of each event's user vector among the flattened [B * L] ones,
    if a user has a vector at each position of the history. rows: [n], the user of each event among
    the B users, if several events share one. Both are None if each event has its own user.
    """

    inputs: UserInputs
    events: Events
    bucket: Tensor
    positions: Tensor | None = None
    rows: Tensor | None = None


class Examples(Protocol):
    """The training events of a log in batches.

    count: the number of events. left_out: the number of interactions that are none, by reason.
    rows: the number of rows, each of one or more events. fixed_shapes: whether the shapes of a
    batch follow from the sizes of its rows alone.
    """

    fixed_shapes: ClassVar[bool]
    count: int
    rows: int
    left_out: dict[str, int]

    def batches(
        self, size: int, seed: int, padded: bool = False, of: Tensor | None = None
    ) -> list[Rows]:
        """Rows of each batch of an epoch, of about `size` events. The same seed gives the same
        batches; `padded` fills them up with events of item 0, so that few sizes occur. of: [n]
        ascending, the rows of the epoch if not all.
        """
        ...

    def take(self, rows: Rows, generator: torch.Generator) -> Batch:
        """The batch of these rows."""
        ...


def examples(config: Config, log: Interactions, users: ColumnTable, times: Tensor) -> Examples:
    """The training events of a log as the config needs them. times: [buckets] ms, see
    `bucket_times`.
    """
    if config.features.activity.enabled:
        return EventExamples(config, log, users, times)
    if config.train.target == "rest":
        return UserExamples(config, log, users)
    return SequenceExamples(config, log, users)


class EventExamples:
    """One row for each event, as of its refresh."""

    fixed_shapes: ClassVar[bool] = True

    def __init__(
        self, config: Config, log: Interactions, users: ColumnTable, times: Tensor
    ) -> None:
        self.features = config.features
        self.log = log
        self.users = users
        times = times.to(log.time.device)
        events = training_events(log, times, with_rows=self.features.first_context)
        self.left_out = left_out(log, times)
        self.buckets = events.bucket.cpu()
        self.count = self.rows = len(self.buckets)
        # The last event is padding: the unknown user and item, before anything happened.
        self.events = events.each(lambda part: pad(part, (0, 1)))

    def batches(
        self, size: int, seed: int, padded: bool = False, of: Tensor | None = None
    ) -> list[Rows]:
        """See Examples."""
        batches = of_rows(epoch_batches(taken(self.buckets, of), size, seed), of)
        padding = self.count if padded else None
        return [Rows(at, len(at)) for at in staged(batches, self.log.user.device, padding)]

    def take(self, rows: Rows, generator: torch.Generator) -> Batch:
        """See Examples."""
        events = self.events.each(lambda part: part[rows.at])
        own = None if events.row is None else self.log.context[events.row]
        inputs = users_as_of(self.log, self.users, events.user, events.as_of, self.features, own)
        return Batch(inputs, events, events.bucket[:1])


class SequenceExamples:
    """Stretches of histories, of at most features.history.length positions; longer histories are
    cut into several stretches.

    Each stretch but a user's first begins with the last event of the one before, so that every
    event except for a user's first is a target once.
    """

    fixed_shapes: ClassVar[bool] = True

    def __init__(self, config: Config, log: Interactions, users: ColumnTable) -> None:
        self.users = users
        self.future = config.train.target == "future"
        self.length = config.features.history.length
        self.log = log.with_prior(self.length)
        self.order, ptr = self.log.sequences()
        begin, end = stretches(ptr, max(1, self.length))
        self.lengths = (end - begin - 1).cpu()
        self.begin = pad(begin, (0, 1))  # the last stretch is padding: it has no event
        self.end = pad(end, (0, 1), value=1)
        first = self.order[ptr[:-1][ptr.diff() > 0]]
        older = len(self.log.user) - len(log.user)  # first rows, which are no interactions
        first = first[first >= older] - older
        weightless = int((~log.counts).sum() - (~log.counts[first]).sum())
        self.count = len(log.user) - len(first) - weightless
        self.rows = len(self.lengths)
        self.left_out = {FIRST_OF_USER: len(first), NO_WEIGHT: weightless}

    def batches(
        self, size: int, seed: int, padded: bool = False, of: Tensor | None = None
    ) -> list[Rows]:
        """See Examples."""
        batches = of_rows(length_batches(taken(self.lengths, of), size, seed), of)
        places = staged(batches, self.order.device, len(self.lengths) if padded else None)
        found = []
        for batch, at in zip(batches, places, strict=True):
            lengths = self.lengths[batch]
            events, length = int(lengths.sum()), int(lengths.max())
            if padded:
                length = min(rounded_up(length, 2), max(1, self.length))
                events = min(rounded_up(events), length * len(at))
            found.append(Rows(at, events, length))
        return found

    def take(self, rows: Rows, generator: torch.Generator) -> Batch:
        """See Examples."""
        last = self.end[rows.at, None] - 1
        position = self.begin[rows.at, None] + torch.arange(rows.length, device=last.device)
        present = position < last
        shown = self.order[torch.minimum(position, last)]
        target = position + 1
        if self.future:
            noise = torch.rand(position.shape, generator=generator, device=position.device)
            target = target + (noise * (last - position)).long()
        events = present.flatten().nonzero_static(size=rows.events).squeeze(1)  # -1 if padding
        targets = self.order[torch.minimum(target, last)].flatten()[events]
        history = torch.zeros_like(position)
        if self.length:
            history = torch.where(present, self.log.item[shown], 0)
        inputs = sequence_inputs(
            self.users, self.log.user[shown[:, 0]], history, self.log.context[shown]
        )
        found = events_without_refresh(self.log, targets)
        present = events >= 0
        if found.weight is not None:
            present &= found.weight > 0
        found = replace(found, item=torch.where(present, found.item, 0))
        return Batch(inputs, found, found.bucket[:1], events.clamp(min=0))


class UserExamples:
    """Users whose vector is trained toward all items that are not in their history, in any order.

    A random part of a user's items is the history, so that it never holds a target, as in denoising
    autoencoders (Liang et al. 2018). With features.history.length 0, every item is a target.

    Shapes are not fixed: how many items are targets depends on the draws.
    """

    fixed_shapes: ClassVar[bool] = False

    def __init__(self, config: Config, log: Interactions, users: ColumnTable) -> None:
        self.users = users
        self.length = config.features.history.length
        self.log = log.with_prior(self.length)
        self.order, self.ptr = self.log.sequences()
        lengths = self.ptr.diff()
        fewest = 2 if self.length else 1  # a history leaves at least one item as a target
        self.codes = (lengths >= fewest).nonzero().squeeze(1)
        self.lengths = lengths[self.codes].cpu()
        known = torch.zeros_like(lengths, dtype=torch.bool)
        known[self.codes] = True
        weightless = int((~log.counts & known[log.user]).sum())
        self.count = int(known[log.user].sum()) - weightless
        self.rows = len(self.lengths)
        self.left_out = {
            ONLY_ONE: int((~known[log.user]).sum()),
            NO_WEIGHT: weightless,
        }

    def batches(
        self, size: int, seed: int, padded: bool = False, of: Tensor | None = None
    ) -> list[Rows]:
        """See Examples. Nothing is filled up."""
        lengths = taken(self.lengths, of)
        order = torch.randperm(len(lengths), generator=torch.Generator().manual_seed(seed))
        batches = of_rows(filled(order, lengths, size), of)
        return [Rows(at, size) for at in staged(batches, self.codes.device, None)]

    def take(self, rows: Rows, generator: torch.Generator) -> Batch:
        """See Examples."""
        user = self.codes[rows.at]
        row, at = ranges(self.ptr[user], self.ptr[user + 1])
        taken = self.order[at]
        position = random_part(row, len(user), self.length, generator)
        shown = position >= 0
        history = torch.zeros(len(user), max(1, self.length), dtype=torch.int64, device=user.device)
        history[row[shown], position[shown]] = self.log.item[taken[shown]]
        # The context has no columns here: the config refuses context columns with this target.
        context = self.log.context[self.order[self.ptr[user]]]
        inputs = user_inputs(self.users, user, history, context)
        target = ~shown
        if self.log.weighted:
            target &= self.log.weight[taken] > 0
        events = events_without_refresh(self.log, taken[target])
        return Batch(inputs, events, torch.zeros_like(user[:1]), rows=row[target])


def taken(values: Tensor, of: Tensor | None) -> Tensor:
    """The values of the rows `of`, all if it is None."""
    return values if of is None else values[of]


def of_rows(batches: list[Tensor], of: Tensor | None) -> list[Tensor]:
    """Batches of places in `of` as batches of the rows there."""
    return batches if of is None else [of[batch] for batch in batches]


def events_without_refresh(log: Interactions, rows: Tensor) -> Events:
    """The rows [n] of the log as events of bucket 0, the only one without item activity."""
    return Events.of(log, rows, torch.zeros_like(rows), log.time[rows])


def random_part(row: Tensor, users: int, length: int, generator: torch.Generator) -> Tensor:
    """A random part of each user's items: each item's position in it, -1 if it is not in it. [n] →
    [n].

    row: [n] ascending, the user of each item. At most `length` items of a user are in the part; its
    share of the user's items is uniform in [0, 1), so at least one item is left.
    """
    if not length:
        return torch.full_like(row, -1)
    counts = row.bincount(minlength=users)
    rank = torch.empty_like(row)
    rank[shuffled_within(row, generator)] = ranges(torch.zeros_like(counts), counts)[1]
    share = torch.rand(users, generator=generator, device=row.device)
    size = (share * counts).long().clamp(max=length)
    return torch.where(rank < size[row], rank, -1)


def stretches(ptr: Tensor, length: int) -> tuple[Tensor, Tensor]:
    """Cut the events of every user into stretches of 2 to `length` + 1 events.

    The newest stretch of a user has the full length. ptr: [users + 1], where each user's events
    begin → begin, end: [stretches] each.
    """
    pieces = ((ptr.diff() - 1).clamp(min=0) + length - 1) // length
    user, number = ranges(torch.zeros_like(pieces), pieces)
    end = ptr[1:][user] - number * length
    return torch.maximum(ptr[:-1][user], end - length - 1), end
