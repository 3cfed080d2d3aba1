"""What users had taken before the log began: items in order, without times."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Self

import torch
from torch import Tensor
from torch.nn.functional import pad

from dssm_core.features.histories import Histories
from dssm_core.features.ragged import ranges


@dataclass(frozen=True)
class PriorItems:
    """The items of each user from before the log, oldest first.

    ptr: [users + 1] int64, where the items of each user code begin in `item`, and the end; empty
    if no user has any. item: [p] int64 item codes.
    """

    ptr: Tensor
    item: Tensor

    @classmethod
    def none(cls) -> Self:
        """Of a log that says nothing of the time before it."""
        return cls(torch.zeros(0, dtype=torch.int64), torch.zeros(0, dtype=torch.int64))

    @classmethod
    def of(cls, user: Tensor, item: Tensor, users: int) -> Self:
        """From codes in order of user. users: number of user codes, code 0 included."""
        if not len(item):
            return cls.none()
        return cls(pad(user.bincount(minlength=users).cumsum(0), (1, 0)), item)

    def __len__(self) -> int:
        """Number of items of all users."""
        return len(self.item)

    def to(self, device: torch.device | str) -> Self:
        """The same items on another device."""
        return type(self)(self.ptr.to(device), self.item.to(device))

    @property
    def user(self) -> Tensor:
        """The user code of each item. → [p]"""
        users = torch.arange(max(0, len(self.ptr) - 1), device=self.ptr.device)
        return users.repeat_interleave(self.ptr.diff())

    def of_items(self, codes: int) -> Self:
        """Those of the first `codes` item codes, code 0 included."""
        kept = self.item < codes
        if kept.all():
            return self
        ends = pad(kept.long().cumsum(0), (1, 0))
        return replace(self, ptr=ends[self.ptr], item=self.item[kept])

    def has(self, user: Tensor) -> Tensor:
        """Which users have such items. user: [B] codes → [B] bool."""
        if not len(self):
            return torch.zeros_like(user, dtype=torch.bool)
        return self.ptr[user + 1] > self.ptr[user]

    def latest_of(self, users: Tensor, length: int) -> tuple[Tensor, Tensor]:
        """The latest `length` items of some users. → user and item code of each, 2 x [n]."""
        end = self.ptr[users + 1]
        row, place = ranges(torch.maximum(self.ptr[users], end - length), end)
        return users[row], self.item[place]

    def latest(self, user: Tensor, length: int) -> tuple[Tensor, Tensor]:
        """Each user's latest items, oldest first, and their number. user: [B] → [B, length] (0
        after the newest), [B].
        """
        if not len(self):
            return user.new_zeros(len(user), length), torch.zeros_like(user)
        end = self.ptr[user + 1]
        held = (end - self.ptr[user]).clamp(max=length)
        place = torch.arange(length, device=user.device)
        at = ((end - held)[:, None] + place).clamp(max=len(self) - 1)
        return torch.where(place < held[:, None], self.item[at], 0), held

    def first(self, user: Tensor, items: Tensor, held: Tensor) -> Tensor:
        """Histories [B, length] of `held` items [B], after as many of these as fit."""
        if not len(self):
            return items
        length = items.shape[1]
        prior, older = self.latest(user, length)
        kept = torch.minimum(older, length - held)
        place = torch.arange(length, device=user.device) - kept[:, None]  # among `items`
        of_prior = prior.gather(1, (older[:, None] + place).clamp(min=0, max=max(0, length - 1)))
        return torch.where(place < 0, of_prior, items.gather(1, place.clamp(min=0)))

    def histories(self, users: int) -> Histories:
        """As item rows (code - 1) of the first `users` user codes, code 0 included."""
        if not len(self):
            return Histories.empty(users)
        ptr = self.ptr.numpy()
        return Histories(ptr[: users + 1], self.item.numpy()[: ptr[users]] - 1)
