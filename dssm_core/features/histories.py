"""Histories of many users as one flat array, without padding."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dssm_core.aliases import Bools, Ints
from dssm_core.features.ragged import offsets


@dataclass(frozen=True)
class Histories:
    """Item rows of each query's history, oldest first; equal times in file order.

    ptr: [Q + 1] int64, where the rows of each query begin in `items`, and the end. items: [n]
    int64, 0..n_items-1.
    """

    ptr: Ints
    items: Ints

    @classmethod
    def of(cls, query: Ints, items: Ints, n_queries: int) -> Histories:
        """Build histories from events in time order. query: 0..n_queries-1; items: rows; [n]."""
        order = np.argsort(query, kind="stable")
        counts = np.bincount(query, minlength=n_queries)
        return cls(offsets(counts), items[order].astype(np.int64))

    def __len__(self) -> int:
        """Number of queries."""
        return len(self.ptr) - 1

    @property
    def counts(self) -> Ints:
        """Number of events of each query. [Q]"""
        return np.diff(self.ptr)

    @property
    def query(self) -> Ints:
        """The query of each event. [n]"""
        return np.repeat(np.arange(len(self), dtype=np.int64), self.counts)

    def part(self, first: int, last: int) -> Histories:
        """The histories of queries first..last-1."""
        begin, end = self.ptr[first], self.ptr[last]
        return Histories(self.ptr[first : last + 1] - begin, self.items[begin:end])

    def take(self, queries: Ints) -> Histories:
        """The histories of `queries` [B] in that order; a query may be repeated."""
        counts = self.counts[queries]
        ptr = offsets(counts)
        rows = np.repeat(self.ptr[queries] - ptr[:-1], counts) + np.arange(ptr[-1])
        return Histories(ptr, self.items[rows])

    def having(self, items: int) -> Histories:
        """The events with items of the first `items` rows."""
        kept = self.items < items
        return Histories.of(self.query[kept], self.items[kept], len(self))

    def latest(self, length: int) -> Histories:
        """At most the newest `length` events of each query."""
        age = np.repeat(self.ptr[1:], self.counts) - np.arange(len(self.items))  # 1 = newest
        return Histories(offsets(np.minimum(self.counts, length)), self.items[age <= length])

    def contains(self, rows: Ints) -> Bools:
        """Whether each item is in the history of its query. rows: [B, K], -1 = none → [B, K]"""
        if not len(self.items):
            return np.zeros(rows.shape, dtype=np.bool_)
        stride = max(rows.max(initial=0), self.items.max()) + 1
        known = np.sort(self.query * stride + self.items)
        keys = np.arange(len(rows))[:, None] * stride + rows
        nearest = np.minimum(np.searchsorted(known, keys), len(known) - 1)
        return np.asarray((known[nearest] == keys) & (rows >= 0))

    def followed_by(self, other: Histories) -> Histories:
        """Each query's history, then the other's history of the same query."""
        query = np.concatenate([self.query, other.query])
        return Histories.of(query, np.concatenate([self.items, other.items]), len(self))

    @classmethod
    def empty(cls, n_queries: int) -> Histories:
        """Histories without events."""
        return cls(np.zeros(n_queries + 1, dtype=np.int64), np.zeros(0, dtype=np.int64))
