"""The index with the vectors that it holds: the best eligible items of each query."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dssm_core import families
from dssm_core.aliases import Floats
from dssm_core.families import INDEXES
from dssm_core.retrieval.eligible import Eligible, Lists, eligible_lists
from dssm_core.retrieval.exact_search import exact_search
from dssm_core.retrieval.indexes.protocol import Index
from dssm_core.runs.files import write_atomically

FILE = "filtered_search.json"
EXACT_BELOW = 20_000  # eligible items: comparing all of them takes less than a search of an index


@dataclass(frozen=True)
class ItemIndex:
    """The index of a catalogue.

    member: searches `index`. vectors: [N, D], which may lie on disk. exact_below: where fewer items
    than this are allowed, all of them are compared instead.
    """

    member: Index
    index: Any
    vectors: Floats
    exact_below: int = EXACT_BELOW

    @property
    def finds_all(self) -> bool:
        """Whether the index always finds what exact search finds."""
        chosen = self.member.inner(self.index)
        return self.member.exact if chosen is None else families.load(INDEXES, chosen[0].kind).exact

    def save(self, folder: Path) -> None:
        """Write the index into an existing folder."""
        self.member.save(self.index, folder)
        content = json.dumps({"exact_below": self.exact_below})
        write_atomically(folder / FILE, content.encode())

    def search(self, queries: Floats, k: int, eligible: Eligible) -> Lists:
        """The k best eligible items for each query [B, D]. → [B, k] rows and scores, -1 = none.

        An approximate index may find fewer than there are. Its short lists are searched again by
        comparing all items, so that a list is short only if fewer items are eligible.
        """
        allowed = eligible.allowed
        if allowed is not None and allowed.sum() < self.exact_below:
            return self.exact(queries, k, eligible)
        rows, scores = eligible_lists(
            lambda n: self.member.search(self.index, queries, n, allowed), eligible, k
        )
        if not self.finds_all:
            wanted = np.minimum(eligible.counts(len(queries)), k)
            short = np.flatnonzero((rows >= 0).sum(1) < wanted)
            if len(short):
                again = self.exact(queries[short], k, eligible.take(short))
                rows[short], scores[short] = again
        return rows, scores

    def exact(self, queries: Floats, k: int, eligible: Eligible) -> Lists:
        """As `search`, by comparing all allowed items."""
        return eligible_lists(
            lambda n: exact_search(self.vectors, queries, n, eligible.allowed), eligible, k
        )


def open_item_index(member: Index, folder: Path, vectors: Floats) -> ItemIndex:
    """What `ItemIndex.save` wrote into `folder`, over vectors [N, D]."""
    file = folder / FILE  # a bundle of older code has none
    exact_below = json.loads(file.read_bytes())["exact_below"] if file.is_file() else EXACT_BELOW
    return ItemIndex(member, member.load(folder), vectors, exact_below)


def build_item_index(
    member: Index, vectors: Floats, seed: int, queries: Floats | None = None
) -> ItemIndex:
    """Build an index over vectors [N, D]; see `Index.build`."""
    return ItemIndex(member, member.build(np.asarray(vectors), seed, queries), vectors)
