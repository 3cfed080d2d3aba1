"""The answerers of a query and the one way to ask them: the served index, exact search, baselines,
another bundle. They all list only what the query may list (retrieval/eligible.py).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np

from dssm_core import families
from dssm_core.aliases import Bools, Floats, Ints
from dssm_core.evaluation.baselines.protocol import Ranker
from dssm_core.evaluation.queries import Slice
from dssm_core.evaluation.query_rows import RequestRows
from dssm_core.families import INDEXES
from dssm_core.features.histories import Histories
from dssm_core.retrieval.bundle import Bundle, assemble, open_bundle
from dssm_core.retrieval.eligible import Eligible, Lists, eligible_lists
from dssm_core.retrieval.indexes.faiss_flat import FaissFlat
from dssm_core.retrieval.indexes.protocol import Index
from dssm_core.retrieval.item_index import ItemIndex, build_item_index, open_item_index
from dssm_core.retrieval.new_users import HOT, HotList, open_hot_list
from dssm_core.retrieval.requests import Queries, Rules
from dssm_core.runs.files import scratch
from dssm_core.runs.layout import ITEM_EMBEDDINGS_FILE, USER_EMBEDDINGS_FILE
from dssm_core.runs.progress_log import logged
from dssm_core.runs.run import Run

QUERIES_AT_ONCE = 4096  # 4096 x 200 rows and hits take tens of MB

# queries [first, last) of a slice, k, what they may list -> item rows [last - first, k or fewer]
Search = Callable[[int, int, int, Eligible], Ints]


@dataclass(frozen=True)
class QueryVectors:
    """A vector for each query: rows [Q] of a matrix [U, D], which may lie on disk.

    cold [Q]: queries that the hot list of the bundle answers, where it has one (new_users.py).
    """

    matrix: Floats
    rows: Ints
    cold: Bools

    def part(self, first: int, last: int) -> Floats:
        """The vectors of queries [first, last): [last - first, D]."""
        return np.asarray(self.matrix[self.rows[first:last]])


@dataclass(frozen=True)
class ServedRun:
    """A run up to build_index, opened to be asked: each file is read once, when it is needed.

    resources: closes the temporary folder of the bundle. Use `open_served`.
    """

    run: Run
    resources: ExitStack = field(default_factory=ExitStack)

    @cached_property
    def users(self) -> Floats:
        """User embeddings [U + 1, D], on disk."""
        return self._embeddings(USER_EMBEDDINGS_FILE)

    @cached_property
    def items(self) -> Floats:
        """Item embeddings [N, D], on disk."""
        return self._embeddings(ITEM_EMBEDDINGS_FILE)

    @cached_property
    def hot(self) -> HotList | None:
        """The list for new users, where the towers do not answer them."""
        return open_hot_list(self.run.step("export_embeddings"))

    @cached_property
    def served(self) -> ItemIndex:
        """The index as it is served: that of the bundle, where the bundle is opened anyway."""
        config = self.run.config
        if config.split.by_row or config.evaluation.rolling or config.features.first_context:
            return self.bundle.index
        member: Index = families.build(INDEXES, self.run.config.index)
        return open_item_index(member, self.run.step("build_index"), self.items)

    @cached_property
    def exact(self) -> ItemIndex:
        """Exact search over the same item embeddings."""
        return build_item_index(FaissFlat(), self.items, self.run.config.seed)

    @cached_property
    def bundle(self) -> Bundle:
        """The bundle as it would be registered, in a temporary folder."""
        folder = self.resources.enter_context(scratch(self.run.root))
        return open_bundle(assemble(self.run, Path(folder) / "bundle"))

    def encode(self, queries: Slice) -> QueryVectors:
        """The vectors of the queries: as exported, or, where the split is by row, from the history
        before each row. With features.first_context, those of new users from their contexts.
        """
        if self.run.config.split.by_row:
            return self._encode(queries, queries.histories)
        if self.run.config.features.first_context:
            return self._encode(queries, Histories.empty(len(queries.codes)))
        return QueryVectors(self.users, queries.codes, queries.codes == 0)

    def search(self, index: ItemIndex, vectors: QueryVectors) -> Search:
        """The nearest items of each query's vector; new users get what they are served."""
        return nearest(index, vectors, self.hot)

    def _encode(self, queries: Slice, histories: Histories) -> QueryVectors:
        """The vectors by which the bundle answers requests with these histories and contexts."""
        context = [feature.column for feature in self.run.config.features.columns.context]
        columns = queries.asked.rows_at(queries.latest, context)
        asked = Queries(queries.codes, histories, Histories.empty(len(columns)), columns)
        parts = [asked.part(first, last) for first, last in chunks(len(asked))]
        rows = np.arange(len(asked))
        if not parts:
            return QueryVectors(np.zeros((0, 1), np.float32), rows, np.zeros(0, np.bool_))
        sources = [self.bundle.sources(part) for part in parts]
        vectors = map(self.bundle.vectors, parts, sources)
        return QueryVectors(np.concatenate(list(vectors)), rows, np.concatenate(sources) == HOT)

    def _embeddings(self, file: str) -> Floats:
        vectors: Floats = np.load(self.run.step("export_embeddings") / file, mmap_mode="r")
        return vectors


@contextmanager
def open_served(run: Run) -> Iterator[ServedRun]:
    """Open a run to be asked; its temporary files last as long as the context."""
    with ExitStack() as resources:
        yield ServedRun(run, resources)


def chunks(n: int) -> Iterator[tuple[int, int]]:
    """[first, last) over 0..n-1, QUERIES_AT_ONCE or fewer at a time."""
    for first in range(0, n, QUERIES_AT_ONCE):
        yield first, min(first + QUERIES_AT_ONCE, n)


def nearest(index: ItemIndex, vectors: QueryVectors, hot: HotList | None) -> Search:
    """The answers of an index; cold queries get the hot list, where there is one."""

    def search(first: int, last: int, k: int, eligible: Eligible) -> Ints:
        lists = index.search(vectors.part(first, last), k, eligible)
        if hot is not None:
            lists = hot.answer(vectors.cold[first:last], *lists, eligible)
        return lists[0]

    return search


def bundle_search(bundle: Bundle, requests: RequestRows, rules: Rules) -> Search:
    """The answers of another model, by its own rules, in the item rows of this run.

    An item that this run does not know becomes -1, a miss.
    """
    rows = np.append(requests.items.encode(bundle.items.index) - 1, -1)  # its row -1 stays -1

    def search(first: int, last: int, k: int, eligible: Eligible) -> Ints:
        lists, _ = bundle.answer(bundle.read(requests.part(first, last)), rules, k)
        return np.asarray(rows[lists[0]])

    return search


def one_list(rows: Ints) -> Search:
    """The same list for every query."""
    return lambda first, last, k, eligible: _eligible_rows(
        lambda n: np.broadcast_to(rows[:n], (last - first, len(rows[:n]))), eligible, k
    )


def list_search(ranker: Ranker, histories: Histories) -> Search:
    """The lists of a baseline for the history of each query."""
    return lambda first, last, k, eligible: _eligible_rows(
        lambda n: ranker.lists(histories.part(first, last), n), eligible, k
    )


def _eligible_rows(ranked: Callable[[int], Ints], eligible: Eligible, k: int) -> Ints:
    """The k first eligible rows of rankings without scores."""

    def search(n: int) -> Lists:
        rows = ranked(n)
        return rows, np.zeros(rows.shape, dtype=np.float32)

    return eligible_lists(search, eligible, k)[0]


def answer(search: Search, queries: Slice, first: int, last: int, k: int) -> Ints:
    """The lists [last - first, k] of queries [first, last), padded by -1.

    An item that a query may not list stays relevant: it can only be missed.
    """
    rows = search(first, last, k, queries.eligible.part(first, last))
    return np.pad(rows, ((0, 0), (0, k - rows.shape[1])), constant_values=-1)


def ask(search: Search, queries: Slice, k: int) -> Ints:
    """The lists [Q, k] of all queries, asked a chunk at a time; see `answer`."""
    lists = np.empty((len(queries.codes), k), dtype=np.int64)
    for first, last in logged(list(chunks(len(lists))), "asking the queries"):
        lists[first:last] = answer(search, queries, first, last, k)
    return lists
