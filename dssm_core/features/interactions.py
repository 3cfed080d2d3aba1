"""The positives of the window, and what was known of users and items at any moment."""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from typing import Any, Self

import torch
from torch import Tensor
from torch.nn.functional import pad

from dssm_core.features.code_rows import CodeRows
from dssm_core.features.prior import PriorItems


def _none() -> Tensor:
    return torch.zeros(0, dtype=torch.int64)


@dataclass(frozen=True)
class Interactions:
    """Positives of the window, coded and sorted by time. All tensors on one device.

    user, item: [n] int64 codes; time: [n] int64 ms since 1970; context: [n, columns] int64 codes;
    created: [items + 1] int64 ms, when the item is first known of (created, else first clicked);
    window: start and end ms.
    shown_*: [m] int64, what known users were shown and did not take (label 0), known items only,
    sorted by time too.
    available_*: [items + 1] int64 ms, an item is available at available_from <= time <
    available_until; [0] if all items always are.
    weight: [n] float32, how much a row counts in the loss of training; [0] if all count 1.
    impression: [n] int64, the impression that a row is of, from 1 on; 0 if it is of none in which
    its user was shown something else; [0] if there are no impressions. shown_impression: [m].
    prior: what users had before the log, which is in histories and among seen items only.
    by_user, by_item: the rows by code and time, if they are stored; else they are sorted when they
    are needed.
    """

    user: Tensor
    item: Tensor
    time: Tensor
    context: Tensor
    created: Tensor
    window: Tensor
    shown_user: Tensor = field(default_factory=_none)
    shown_item: Tensor = field(default_factory=_none)
    shown_time: Tensor = field(default_factory=_none)
    available_from: Tensor = field(default_factory=_none)
    available_until: Tensor = field(default_factory=_none)
    weight: Tensor = field(default_factory=_none)
    impression: Tensor = field(default_factory=_none)
    shown_impression: Tensor = field(default_factory=_none)
    prior: PriorItems = field(default_factory=PriorItems.none, metadata={"of": PriorItems})
    by_user: CodeRows | None = field(default=None, metadata={"derived": True})
    by_item: CodeRows | None = field(default=None, metadata={"derived": True})

    def to(self, device: torch.device | str) -> Self:
        """The same log on another device."""
        held: dict[str, Any] = {part.name: getattr(self, part.name) for part in fields(self)}
        present = {name: part for name, part in held.items() if part is not None}
        return type(self)(**{name: part.to(device) for name, part in present.items()})

    def before(self, as_of: int) -> Self:
        """The log as it was at a moment: earlier rows only, the same codes, the window ending
        there.
        """
        kept = int(torch.searchsorted(self.time, as_of))
        names = ("user", "item", "time", "context", "weight", "impression")
        parts = {name: getattr(self, name)[:kept] for name in names}
        seen = int(torch.searchsorted(self.shown_time, as_of))
        shown_names = ("shown_user", "shown_item", "shown_time", "shown_impression")
        shown = {name: getattr(self, name)[:seen] for name in shown_names}
        return replace(
            self,
            **parts,
            **shown,
            window=torch.tensor([self.start, as_of], device=self.window.device),
            by_user=self.by_user and self.by_user.first(kept, as_of),
            by_item=self.by_item and self.by_item.first(kept, as_of),
        )

    def without(self, rows: Tensor) -> Self:
        """The log less some of its rows, the same codes. rows: [n] bool."""
        kept = ~rows
        return replace(
            self,
            user=self.user[kept],
            item=self.item[kept],
            time=self.time[kept],
            context=self.context[kept],
            weight=self.weight[kept] if self.weighted else self.weight,
            impression=self.impression[kept] if self.has_impressions else self.impression,
            by_user=None,
            by_item=None,
        )

    def of_items(self, codes: int) -> Self:
        """The log as if it had the first `codes` item codes only, code 0 included. All positives
        must be of these; what was shown of other items is left out.
        """
        parts = {
            name: getattr(self, name)[:codes]
            for name in ("created", "available_from", "available_until")
        }
        kept = self.shown_item < codes
        for name in ("shown_user", "shown_item", "shown_time"):
            parts[name] = getattr(self, name)[kept]
        if self.has_impressions:
            parts["shown_impression"] = self.shown_impression[kept]
        return replace(self, prior=self.prior.of_items(codes), **parts)

    def with_prior(self, length: int) -> Self:
        """The log with what users had before it, the latest `length` items of each, as first rows:
        of weight 0, without a context, and only of users with a row.
        """
        if not len(self.prior):
            return self
        user, item = self.prior.latest_of(self.user.unique(), length)
        n = len(user)
        return replace(
            self,
            user=torch.cat([user, self.user]),
            item=torch.cat([item, self.item]),
            time=torch.cat([self.window[:1].expand(n) - 1, self.time]),
            context=pad(self.context, (0, 0, n, 0)),
            weight=torch.cat([self.weight.new_zeros(n), self.counts_as]),
            impression=pad(self.impression, (n, 0)) if self.has_impressions else self.impression,
            prior=PriorItems.none(),
            by_user=None,
            by_item=None,
        )

    def last_of_each(self) -> Tensor:
        """Which rows are the last of their user, in file order where times tie; a user's only row
        is not. → [n] bool.
        """
        order, ptr = self.sequences()
        last = torch.zeros_like(self.user, dtype=torch.bool)
        last[order[ptr[1:][ptr.diff() > 1] - 1]] = True
        return last

    @property
    def weighted(self) -> bool:
        """Whether rows have weights."""
        return len(self.weight) > 0

    @property
    def has_impressions(self) -> bool:
        """Whether rows have impressions."""
        return len(self.impression) > 0

    @property
    def counts_as(self) -> Tensor:
        """How much each row counts. → [n] float32."""
        return self.weight if self.weighted else torch.ones_like(self.user, dtype=torch.float32)

    @property
    def counts(self) -> Tensor:
        """Which rows may be training events: those that have no weight of 0. → [n] bool."""
        return self.weight > 0 if self.weighted else torch.ones_like(self.user, dtype=torch.bool)

    @property
    def timed_items(self) -> bool:
        """Whether items are available at some times only."""
        return len(self.available_from) > 0

    def available(self, as_of: int) -> Tensor:
        """Which items are available at a time. → [items + 1] bool."""
        if not self.timed_items:
            return torch.ones_like(self.created, dtype=torch.bool)
        return (self.available_from <= as_of) & (as_of < self.available_until)

    @property
    def start(self) -> int:
        """Start of the window, ms."""
        return int(self.window[0])

    @property
    def end(self) -> int:
        """End of the window (the cutoff), ms."""
        return int(self.window[1])

    @cached_property
    def _item_rows(self) -> CodeRows:
        return self.by_item or CodeRows.of(self.item, self.time)

    @cached_property
    def _user_rows(self) -> CodeRows:
        return self.by_user or CodeRows.of(self.user, self.time)

    def clicks_before(self, item: Tensor, as_of: Tensor) -> Tensor:
        """Number of keys below (item, as_of); differences of two are counts. item, as_of: [n] →
        [n].
        """
        return self._item_rows.before(item, as_of)

    def clicks(self, item: Tensor, start: Tensor, end: Tensor) -> Tensor:
        """Clicks on each item with start <= time < end. All [n]; → [n] int64."""
        return self.clicks_before(item, end) - self.clicks_before(item, start)

    def last_click(self, item: Tensor, as_of: Tensor) -> Tensor:
        """Time of each item's latest click before as_of, ms; the window's start where there is
        none. → [n].
        """
        rows, held = self._latest(self._item_rows, item, as_of, 1)
        return torch.where(held, self.time[rows], self.window[0]).squeeze(1)

    def history(self, user: Tensor, as_of: Tensor, length: int) -> tuple[Tensor, Tensor]:
        """Each user's latest items before as_of, oldest first, and the context of the newest. Those
        from before the log are older than all rows.

        user, as_of: [B] → items [B, length] (0 after the newest), context [B, columns] (0 = none).
        """
        place = torch.arange(length, device=user.device)
        if not len(self.user):
            return self.prior.latest(user, length)[0], user.new_zeros(
                len(user), self.context.shape[1]
            )
        sorted_rows = self._user_rows
        end = sorted_rows.before(user, as_of)
        begin = sorted_rows.begin(user)
        held = (end - begin).clamp(max=length)
        rows = sorted_rows.rows(
            ((end - held)[:, None] + place).clamp(max=len(sorted_rows.order) - 1)
        )
        latest = sorted_rows.rows((end - 1).clamp(min=0))
        items = torch.where(place < held[:, None], self.item[rows], 0)
        items = self.prior.first(user, items, held)
        return items, torch.where((end > begin)[:, None], self.context[latest], 0)

    def new(self, user: Tensor, as_of: Tensor) -> Tensor:
        """Which users have no row before as_of. user, as_of: [B] → [B] bool."""
        if not len(self.user):
            return torch.ones_like(user, dtype=torch.bool)
        return self._user_rows.before(user, as_of) == self._user_rows.begin(user)

    def sequences(self) -> tuple[Tensor, Tensor]:
        """Every user's rows of the log in time order, file order for ties. → rows [n], ptr [users +
        2] by user code.
        """
        return self._sequences

    @cached_property
    def _sequences(self) -> tuple[Tensor, Tensor]:
        order = self._user_rows.order
        if len(order) > len(self.user):  # the rows of a longer log
            order = order[order < len(self.user)]
        ptr = torch.bincount(self.user).cumsum(0) if len(self.user) else self.user.new_zeros(1)
        return order.long(), torch.cat([ptr.new_zeros(1), ptr])

    def audience(self, item: Tensor, as_of: Tensor, length: int) -> Tensor:
        """Contexts of each item's latest clicks before as_of, newest first. → [N, columns, length],
        0 = none.
        """
        rows, held = self._latest(self._item_rows, item, as_of, length)
        return torch.where(held[..., None], self.context[rows], 0).transpose(1, 2)

    def _latest(
        self, sorted_rows: CodeRows, code: Tensor, as_of: Tensor, length: int
    ) -> tuple[Tensor, Tensor]:
        """Rows of the log of each code's latest events before as_of, newest first, and which are
        held. → 2 x [n, length].
        """
        end = sorted_rows.before(code, as_of)
        begin = sorted_rows.begin(code)
        places = end[:, None] - 1 - torch.arange(length, device=end.device)
        return sorted_rows.rows(places.clamp(min=0)), places >= begin[:, None]
