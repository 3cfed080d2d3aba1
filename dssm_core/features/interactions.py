"""Features as of a moment: the same functions for training, export and serving.

What the model sees of an item or a user for an event comes from interactions strictly before the
event's `as_of`. With item activity on, `as_of` is the latest refresh (every `refresh_h` hours,
counted back from the cutoff) before the event, because that is how old the embeddings in the served
index are when a click happens.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from typing import NamedTuple, Self

import torch
from torch import Tensor
from torch.nn.functional import pad

from dssm_core.columns import HOUR_MS
from dssm_core.config import Features


class UserInputs(NamedTuple):
    """What the user tower sees: of users at one moment each, or (`sequence_inputs`) at every place
    of their histories.

    history: [B, L] item codes, oldest first, then 0. The others have [B] or, at every place, [B, L]
    as leading dims.
    """

    user: Tensor  # [B] int64 codes
    history: Tensor  # [B, L] int64
    categorical: Tensor  # [..., static + context columns] int64
    multi: Tensor  # [..., columns, values] int64, 0 = none
    numeric: Tensor  # [..., F] float32, the history's length last


class ItemInputs(NamedTuple):
    """What the item tower sees."""

    item: Tensor  # [N] int64 codes
    categorical: Tensor  # [N, columns] int64
    multi: Tensor  # [N, columns + context columns, values] int64, 0 = none; the audience last
    numeric: Tensor  # [N, F] float32, activity last


def _none() -> Tensor:
    return torch.zeros(0, dtype=torch.int64)


@dataclass(frozen=True)
class Log:
    """Positives of the window, coded and sorted by time. All tensors on one device.

    user, item: [n] int64 codes; time: [n] int64 ms since 1970; context: [n, columns] int64 codes;
    created: [items + 1] int64 ms, when the item is first known of (created, else first clicked);
    window: start and end ms.
    shown_*: [m] int64, what known users were shown and did not take (label 0), known items only,
    sorted by time too.
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

    def to(self, device: torch.device | str) -> Self:
        """The same log on another device."""
        return type(self)(*(getattr(self, part.name).to(device) for part in fields(self)))

    def before(self, as_of: int) -> Self:
        """The log as it was at a moment: earlier rows only, the same codes, the window ending
        there.
        """
        kept = int(torch.searchsorted(self.time, as_of))
        parts = {name: getattr(self, name)[:kept] for name in ("user", "item", "time", "context")}
        seen = int(torch.searchsorted(self.shown_time, as_of))
        shown = {
            name: getattr(self, name)[:seen] for name in ("shown_user", "shown_item", "shown_time")
        }
        return replace(
            self,
            **parts,
            **shown,
            window=torch.tensor([self.start, as_of], device=self.window.device),
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
    def start(self) -> int:
        """Start of the window, ms."""
        return int(self.window[0])

    @property
    def end(self) -> int:
        """End of the window (the cutoff), ms."""
        return int(self.window[1])

    @cached_property
    def span(self) -> int:
        """Length of the window, ms, plus one: the stride of a (code, time) key."""
        return self.end - self.start + 1

    @cached_property
    def _by_item(self) -> tuple[Tensor, Tensor]:
        keys, order = (self.item * self.span + self.time - self.start).sort(stable=True)
        return keys, order

    @cached_property
    def _by_user(self) -> tuple[Tensor, Tensor]:
        keys, order = (self.user * self.span + self.time - self.start).sort(stable=True)
        return keys, order

    def _since_start(self, as_of: Tensor) -> Tensor:
        return (as_of - self.start).clamp(0, self.span - 1)

    def clicks_before(self, item: Tensor, as_of: Tensor) -> Tensor:
        """Number of keys below (item, as_of); differences of two are counts. item, as_of: [n] →
        [n].
        """
        return torch.searchsorted(self._by_item[0], item * self.span + self._since_start(as_of))

    def clicks(self, item: Tensor, start: Tensor, end: Tensor) -> Tensor:
        """Clicks on each item with start <= time < end. All [n]; → [n] int64."""
        return self.clicks_before(item, end) - self.clicks_before(item, start)

    def last_click(self, item: Tensor, as_of: Tensor) -> Tensor:
        """Time of each item's latest click before as_of, ms; the window's start where there is
        none. → [n].
        """
        before = self.clicks_before(item, as_of)
        key = self._by_item[0][(before - 1).clamp(min=0)]
        return self.start + torch.where(
            (before > 0) & (key // self.span == item), key % self.span, 0
        )

    def history(self, user: Tensor, as_of: Tensor, length: int) -> tuple[Tensor, Tensor]:
        """Each user's latest items before as_of, oldest first, and the context of the newest.

        user, as_of: [B] → items [B, length] (0 after the newest), context [B, columns] (0 = none).
        """
        keys, order = self._by_user
        if not len(order):
            return user.new_zeros(len(user), length), user.new_zeros(
                len(user), self.context.shape[1]
            )
        end, begin = self._ends(keys, user, as_of)
        held = torch.minimum(end - begin, torch.tensor(length, device=end.device))
        place = torch.arange(length, device=end.device)
        rows = order[((end - held)[:, None] + place).clamp(max=len(order) - 1)]
        items = torch.where(place < held[:, None], self.item[rows], 0)
        return items, torch.where(
            (end > begin)[:, None], self.context[order[(end - 1).clamp(min=0)]], 0
        )

    def sequences(self) -> tuple[Tensor, Tensor]:
        """Every user's rows of the log in time order, file order for ties. → rows [n], ptr [users +
        2] by user code.
        """
        keys, order = self._by_user
        known = int(self.user.max()) if len(self.user) else 0
        users = torch.arange(known + 2, device=keys.device)
        return order, torch.searchsorted(keys, users * self.span)

    def audience(self, item: Tensor, as_of: Tensor, length: int) -> Tensor:
        """Contexts of each item's latest clicks before as_of, newest first. → [N, columns, length],
        0 = none.
        """
        rows, held = self._latest(self._by_item, item, as_of, length)
        return torch.where(held[..., None], self.context[rows], 0).transpose(1, 2)

    def _ends(self, keys: Tensor, code: Tensor, as_of: Tensor) -> tuple[Tensor, Tensor]:
        """Where each code's events before as_of end, and where its events begin, in sorted keys. →
        2 x [n].
        """
        return torch.searchsorted(
            keys, code * self.span + self._since_start(as_of)
        ), torch.searchsorted(keys, code * self.span)

    def _latest(
        self, sorted_keys: tuple[Tensor, Tensor], code: Tensor, as_of: Tensor, length: int
    ) -> tuple[Tensor, Tensor]:
        """Rows of the log of each code's latest events before as_of, newest first, and which are
        held. → 2 x [n, length].
        """
        keys, order = sorted_keys
        end, begin = self._ends(keys, code, as_of)
        places = end[:, None] - 1 - torch.arange(length, device=end.device)
        return order[places.clamp(min=0)], places >= begin[:, None]


@dataclass(frozen=True)
class Means:
    """Targets of train rows by (group, time), for means as of any moment; see target_mean.py. F
    features.

    group: [codes, F] int64, 0 = none; everyone: [F], the group of all rows; key: [R] int64 sorted,
    group * span + ms since the window's start; total: [R + 1] float64, targets before each key;
    scale: [2, F] smoothing and deviation; window: [2] ms.
    """

    group: Tensor
    everyone: Tensor
    key: Tensor
    total: Tensor
    scale: Tensor
    window: Tensor

    @classmethod
    def none(cls) -> Self:
        """Of no feature."""
        nothing = torch.zeros(0, dtype=torch.int64)
        return cls(
            nothing.reshape(0, 0),
            nothing,
            nothing,
            torch.zeros(1).double(),
            torch.zeros(2, 0).double(),
            torch.zeros(2).long(),
        )

    def to(self, device: torch.device | str) -> Self:
        """The same on another device."""
        return type(self)(*(getattr(self, part.name).to(device) for part in fields(self)))

    def as_of(self, code: Tensor, moment: Tensor) -> Tensor:
        """How much better than all rows the code's group did before a moment. code, moment (ms):
        [n] → [n, F] float32.

        (sum - n * mean of all) / (n + smoothing) / deviation: 0 where nothing is known, shrunk
        where little is.
        """
        if not len(self.everyone):
            return torch.zeros(len(code), 0, device=code.device)
        group = self.group[code]  # [n, F]
        count, total = self._before(group, moment)
        all_count, all_total = self._before(self.everyone.expand_as(group), moment)
        excess = total - count * all_total / all_count.clamp(min=1)
        return (excess / (count + self.scale[0]) / self.scale[1]).float()

    def _before(self, group: Tensor, moment: Tensor) -> tuple[Tensor, Tensor]:
        """Rows of each group before a moment, and the sum of their targets. group: [n, F]; moment:
        [n] → 2 x [n, F].
        """
        span = self.window[1] - self.window[0] + 1
        since = torch.minimum((moment - self.window[0]).clamp(min=0), span - 1)
        begin, end = (
            torch.searchsorted(self.key, group * span),
            torch.searchsorted(self.key, group * span + since[:, None]),
        )
        return end - begin, self.total[end] - self.total[begin]


@dataclass(frozen=True)
class Table:
    """Static columns of users or items by code; row 0 is the unknown one, all zeros. means: of
    targets, as of a moment.
    """

    categorical: Tensor  # [codes, columns] int64
    multi: Tensor  # [codes, columns, values] int64
    numeric: Tensor  # [codes, columns] float32, standardised
    means: Means = field(default_factory=Means.none, metadata={"of": Means})

    def to(self, device: torch.device | str) -> Self:
        """The same table on another device."""
        return type(self)(*(getattr(self, part.name).to(device) for part in fields(self)))


def activity(log: Log, item: Tensor, as_of: Tensor, windows_h: tuple[int, ...]) -> Tensor:
    """Point-in-time activity of items, raw. item, as_of: [n] → [n, len(windows_h) + 3] float32.

    log(1 + clicks) in each of the last `windows_h` hours and in the window so far, log(1 + age in
    hours), log(1 + hours since the last click).
    """
    counts = [log.clicks(item, as_of - hours * HOUR_MS, as_of) for hours in windows_h]
    counts.append(log.clicks(item, torch.full_like(as_of, log.start), as_of))
    ages = [as_of - log.created[item], as_of - log.last_click(item, as_of)]
    hours = [(age.clamp(min=0).double() / HOUR_MS) for age in ages]
    return torch.stack([*counts, *hours], dim=1).double().log1p().float()


def item_inputs(
    log: Log, table: Table, item: Tensor, as_of: int, features: Features, scale: Tensor
) -> ItemInputs:
    """What the item tower sees of items as of one moment.

    item: [N] codes; as_of: ms; scale: [2, activity columns] mean and standard deviation of
    `activity` on train.
    """
    moments = torch.full_like(item, as_of)
    multi, numeric = (
        table.multi[item],
        torch.cat([table.numeric[item], table.means.as_of(item, moments)], dim=1),
    )
    if features.activity.enabled:
        raw = activity(log, item, moments, features.activity.windows_h)
        numeric = torch.cat([numeric, (raw - scale[0]) / scale[1]], dim=1)
        multi = _side_by_side(multi, log.audience(item, moments, features.activity.audience))
    return ItemInputs(item, table.categorical[item], multi, numeric)


def _side_by_side(one: Tensor, other: Tensor) -> Tensor:
    """Multi-valued columns [n, a, v] and [n, b, w] as one [n, a + b, max(v, w)], padded with 0."""
    width = max(one.shape[2], other.shape[2])
    return torch.cat([pad(part, (0, width - part.shape[2])) for part in (one, other)], dim=1)


def user_inputs(
    table: Table, user: Tensor, history: Tensor, context: Tensor, as_of: Tensor | None = None
) -> UserInputs:
    """What the user tower sees of users with these histories and latest contexts.

    user: [B] codes; history: [B, L] item codes, oldest first, then 0; context: [B, columns] codes;
    as_of: [B] ms, the end of the train window if not said, as in serving.
    """
    means = table.means.as_of(
        user, table.means.window[1].expand_as(user) if as_of is None else as_of
    )
    length = (history > 0).sum(1, keepdim=True).float().log1p()
    categorical = torch.cat([table.categorical[user], context], dim=1)
    return UserInputs(
        user,
        history,
        categorical,
        table.multi[user],
        torch.cat([table.numeric[user], means, length], dim=1),
    )


def sequence_inputs(table: Table, user: Tensor, history: Tensor, context: Tensor) -> UserInputs:
    """What the user tower sees at every place of a history: the place's own context, the length so
    far.

    user: [B] codes; history: [B, L] item codes, oldest first, then 0; context: [B, L, columns]
    codes.
    """
    length = (history > 0).cumsum(1)[..., None].float().log1p()
    everywhere = [
        part[user, None].expand(-1, history.shape[1], *part.shape[1:])
        for part in (table.categorical, table.multi, table.numeric)
    ]
    categorical, numeric = (
        torch.cat([everywhere[0], context], dim=2),
        torch.cat([everywhere[2], length], dim=2),
    )
    return UserInputs(user, history, categorical, everywhere[1], numeric)


def users_as_of(
    log: Log, table: Table, user: Tensor, as_of: Tensor, features: Features
) -> UserInputs:
    """What the user tower sees of known users as of each moment. user, as_of: [B]."""
    history, context = log.history(user, as_of, features.history.length)
    return user_inputs(table, user, history, context, as_of)


def refresh_times(start: int, cutoff: int, features: Features) -> list[int]:
    """The moments (ms) at which training sees activity: each refresh_h hours back from the cutoff,
    oldest first.

    The window's start is never among them: nothing is known of any item then.
    """
    step = features.activity.refresh_h * HOUR_MS
    return list(range(cutoff - step, start, -step))[::-1]
