"""What each of many users did so far, as one flat array: no padding, no Python lists."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dssm_core.aliases import Ints


@dataclass(frozen=True)
class Histories:
    """Item rows of each query's past, oldest first; equal times in file order.

    ptr [Q + 1] int64: where each query's rows begin in items, and the end; items [n] int64,
    0..n_items-1.
    """

    ptr: Ints
    items: Ints

    @classmethod
    def of(cls, query: Ints, items: Ints, n_queries: int) -> Histories:
        """From events in time order: query 0..n_queries-1 and item row of each, both [n]."""
        order = np.argsort(query, kind="stable")
        counts = np.bincount(query, minlength=n_queries)
        return cls(
            np.concatenate([[0], np.cumsum(counts)]).astype(np.int64), items[order].astype(np.int64)
        )

    def __len__(self) -> int:
        """Number of queries."""
        return len(self.ptr) - 1

    @property
    def counts(self) -> Ints:
        """Events a query. [Q]"""
        return np.diff(self.ptr)

    @property
    def query(self) -> Ints:
        """The query of each event. [n]"""
        return np.repeat(np.arange(len(self), dtype=np.int64), self.counts)

    def part(self, first: int, last: int) -> Histories:
        """Queries first..last-1 alone."""
        begin, end = self.ptr[first], self.ptr[last]
        return Histories(self.ptr[first : last + 1] - begin, self.items[begin:end])

    def take(self, queries: Ints) -> Histories:
        """The named queries' rows, in the order of `queries` [B]; one may be named twice."""
        counts = self.counts[queries]
        ptr = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
        return Histories(
            ptr, self.items[np.repeat(self.ptr[queries] - ptr[:-1], counts) + np.arange(ptr[-1])]
        )

    def latest(self, length: int) -> Histories:
        """At most the newest `length` events of each query."""
        age = np.repeat(self.ptr[1:], self.counts) - np.arange(len(self.items))  # 1 = newest
        kept = age <= length
        return Histories(
            np.concatenate([[0], np.cumsum(np.minimum(self.counts, length))]).astype(np.int64),
            self.items[kept],
        )

    def drop_from(self, rows: Ints) -> Ints:
        """Lists without what their query has taken: the others move up, -1 follows. rows: [B, K],
        -1 = none → [B, K].
        """
        stride = max(rows.max(initial=0), self.items.max(initial=0)) + 1
        taken = np.sort(self.query * stride + self.items)
        keys = np.arange(len(rows))[:, None] * stride + rows
        at = np.minimum(np.searchsorted(taken, keys), max(len(taken) - 1, 0))
        gone = (rows < 0) | ((taken[at] == keys) if len(taken) else False)
        order = np.argsort(gone, axis=1, kind="stable")
        return np.take_along_axis(np.where(gone, -1, rows), order, 1)
