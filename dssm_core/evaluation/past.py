"""The positives of each user in time order, and what a query may know of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from dssm_core.aliases import Ints
from dssm_core.columns import ITEM, USER
from dssm_core.features.histories import Histories
from dssm_core.features.ids import Ids
from dssm_core.features.ragged import offsets, positions


@dataclass(frozen=True)
class Past:
    """Positives grouped by user, oldest first.

    users: external ids of users with a positive [U]; ptr [U + 1]: where the events of each user
    begin; items [n]: item rows, -1 unknown; events [n]: position of each in the log.
    """

    users: pd.Index[Any]
    ptr: Ints
    items: Ints
    events: Ints

    @classmethod
    def of(cls, users: pd.Series[Any], items: Ints) -> Past:
        """Build from positives in time order: external user and item row of each, both [n]."""
        codes, names = pd.factorize(users)
        order = np.argsort(codes, kind="stable")
        counts = np.bincount(codes, minlength=len(names))
        ptr = offsets(counts)
        return cls(pd.Index(names), ptr, items[order], order)

    @classmethod
    def of_frames(cls, train: pd.DataFrame, later: pd.DataFrame, items: Ids) -> Past:
        """Build from positives of the training set and later ones, each in time order."""
        events = pd.concat([train[[USER, ITEM]], later[[USER, ITEM]]])
        return cls.of(events[USER], items.encode(events[ITEM]) - 1)

    def spans(self, users: Any, count: Ints | None = None) -> tuple[Ints, Ints]:
        """Where the events of each user [Q] begin, and where they end: 2 x [Q].

        count [Q]: take only the first `count` events of each user.
        """
        code = self.users.get_indexer(pd.Index(users))
        begin = np.where(code >= 0, self.ptr[code], 0)
        if count is not None:
            return begin, begin + count
        return begin, np.where(code >= 0, self.ptr[code + 1], 0)

    def histories(self, begin: Ints, end: Ints) -> tuple[Histories, Ints]:
        """The known items of each span, and the newest event of each span: [Q], -1 if empty."""
        counts = end - begin
        query = np.repeat(np.arange(len(begin)), counts)
        items = self.items[np.repeat(begin, counts) + positions(counts)]
        newest = np.full(len(begin), -1, dtype=np.int64)
        newest[counts > 0] = self.events[end[counts > 0] - 1]
        known = items >= 0
        return Histories.of(query[known], items[known], len(begin)), newest
