"""The items that each exported user has seen: the positives up to the export."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dssm_core.aliases import Ints
from dssm_core.features.histories import Histories
from dssm_core.features.ragged import distinct, offsets, positions

POINTERS = "seen_pointers.npy"  # [users + 1] int64
ITEMS = "seen_items.npy"  # [n] int32 item rows


@dataclass(frozen=True)
class SeenItems:
    """Distinct item rows of each user code.

    ptr: [users + 1] int64, where the rows of each code begin in `items`, and the end; code 0, the
    unknown user, has none. items: [n] item rows. Both may lie on disk.
    """

    ptr: Ints
    items: Ints

    @classmethod
    def of(cls, user: Ints, item: Ints, users: int, items: int) -> SeenItems:
        """From positives [n]: user codes 1..users-1 and item rows 0..items-1."""
        pairs = distinct(user * items + item)
        user, item = np.divmod(pairs, items)
        counts = np.bincount(user, minlength=users)
        return cls(offsets(counts), item.astype(np.int32))

    @classmethod
    def load(cls, folder: Path) -> SeenItems | None:
        """Map what `save` wrote into memory; None for a bundle that was written without it."""
        if not (folder / POINTERS).is_file():
            return None
        ptr, items = (
            np.load(folder / file, mmap_mode="r", allow_pickle=False) for file in (POINTERS, ITEMS)
        )
        return cls(ptr, items)

    def save(self, folder: Path) -> None:
        """Write both arrays into a folder of exported embeddings or a bundle."""
        np.save(folder / POINTERS, self.ptr)
        np.save(folder / ITEMS, self.items)

    def joined(self, other: SeenItems | None, items: int) -> SeenItems:
        """What either says of the first items. other: of the first user codes, None: nothing."""
        parts = [self] if other is None else [self, other]
        user = np.concatenate([part._user() for part in parts])
        item = np.concatenate([part.items for part in parts]).astype(np.int64)
        known = item < items
        return SeenItems.of(user[known], item[known], len(self.ptr) - 1, items)

    def first(self, users: int) -> SeenItems:
        """The same for the first user codes, code 0 included."""
        return SeenItems(self.ptr[: users + 1], self.items[: self.ptr[users]])

    def _user(self) -> Ints:
        """The user code of each item. [n]"""
        return np.repeat(np.arange(len(self.ptr) - 1), np.diff(self.ptr))

    def of_users(self, codes: Ints) -> Histories:
        """What users have seen. codes: [B] → B histories."""
        begin = np.asarray(self.ptr[codes])
        counts = np.asarray(self.ptr[codes + 1]) - begin
        rows = np.repeat(begin, counts) + positions(counts)
        return Histories(offsets(counts), np.asarray(self.items[rows], dtype=np.int64))
