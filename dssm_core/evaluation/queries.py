"""The queries of the test set: who asks, what each query knows, and which items it should find.

There are two slices of the same test rows. `warm`, the headline, holds users and items of the
training set. `all` holds every user and item: an item outside the training set can only be missed,
and a user outside it asks as the unknown user (code 0).

A query is a user with all of the user's distinct test positives; it knows the user's training set.
Where the split is by row (`last_n`), each positive test row is a query, and knows all positives of
the user before it.

All queries are those of the asked users (asked.py). `all` is answered, and the other slices are
some of its queries.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from dssm_core.aliases import Bools, Ints
from dssm_core.columns import INTERNAL, ITEM, LABEL, USER
from dssm_core.evaluation.asked import AskedUsers
from dssm_core.evaluation.past import Past
from dssm_core.evaluation.rows import CodedRows, count_relevant, read_test_rows
from dssm_core.evaluation.slices import groups
from dssm_core.features.dataset import load_log
from dssm_core.features.histories import Histories
from dssm_core.features.ids import Ids
from dssm_core.features.popularity import Clicks
from dssm_core.metrics import Relevant
from dssm_core.retrieval.catalogue import check_enough, open_catalogue
from dssm_core.retrieval.eligible import Eligible
from dssm_core.runs.layout import ITEM_IDS_FILE, TRAIN_FILE, USER_IDS_FILE
from dssm_core.runs.run import Run

RELEVANT = f"{INTERNAL}relevant"  # whether a test row should be found


@dataclass(frozen=True)
class Slice:
    """Queries and the items that they should find.

    users [Q]: external ids; codes [Q]: rows of the user embeddings, 0 = unknown; histories: item
    rows that each query knows; eligible: the items that each query may list; asked: the users and
    their rows; latest [Q]: position of the event whose context the query shows, its newest, among
    the positives of the asked users, those of the training set before those of the test set, -1 for
    none (with features.first_context, the first event that it should find); position [Q]: of each
    query among those that are answered together, such as those of `all`.
    """

    users: npt.NDArray[Any]
    codes: Ints
    relevant: Relevant
    histories: Histories
    eligible: Eligible
    asked: AskedUsers
    latest: Ints
    position: Ints

    def take(self, queries: Ints) -> Slice:
        """Some queries [n], to be answered. `relevant` stays that of the whole slice."""
        return Slice(
            self.users[queries],
            self.codes[queries],
            self.relevant,
            self.histories.take(queries),
            self.eligible.take(queries),
            self.asked,
            self.latest[queries],
            self.position[queries],
        )

    def part(self, query: Ints, rows: Ints) -> Slice:
        """The queries that some positives [P] belong to, which are to find only these.

        query: of this slice, rows: the item row of each positive.
        """
        own, queries = pd.factorize(query)
        relevant = Relevant.of(own, rows, len(queries), self.relevant.n_items)
        return replace(self.take(queries), relevant=relevant)


@dataclass(frozen=True)
class ListRules:
    """What every list may hold, as the served model's rules say.

    n_items: items of the catalogue. allowed: [N], None: all of them. exclude_seen: whether a query
    leaves out its own history.
    """

    n_items: int
    allowed: Bools | None = None
    exclude_seen: bool = False

    def eligible(self, histories: Histories) -> Eligible:
        """The items that queries with these histories may list."""
        return Eligible(self.n_items, self.allowed, histories if self.exclude_seen else None)


@dataclass(frozen=True)
class LabelledPairs:
    """Warm test rows with either label: a query for each row, its item row [n] and label [n]."""

    queries: Slice
    items: Ints
    labels: Ints


@dataclass(frozen=True)
class EvaluationData:
    """The training set and the queries of a run, in codes.

    asked: the users of the queries. test_counts [N]: positive test rows of each item of the
    training set, of all users; parts: slices of `all` by name, see slices.py.
    """

    items: Ids
    train: Clicks
    cutoff_ms: int
    asked: AskedUsers
    warm: Slice
    all: Slice
    pairs: LabelledPairs
    test_counts: Ints
    parts: dict[str, Slice]


def read_evaluation_data(run: Run) -> EvaluationData:
    """The training set and the queries of a run, in the codes of its exported embeddings."""
    folder = run.step("export_embeddings")
    users = Ids.load(folder / USER_IDS_FILE)
    items = Ids.load(folder / ITEM_IDS_FILE)
    return make_evaluation_data(run, users, items)


def make_evaluation_data(run: Run, users: Ids, items: Ids) -> EvaluationData:
    """The training set and the queries of a run. users, items: of its coded log.

    Rows of label 0 count for `pairs` only.
    """
    by_row = run.config.split.by_row
    log = load_log(run.step("sample_negatives"))
    train = Clicks.of(log)
    prior = log.prior.histories(len(users))
    asked = AskedUsers.of(run)
    rules = _list_rules(run, items)
    train_frame = asked.positives(TRAIN_FILE, [USER, ITEM])
    test = read_test_rows(run, asked, train_frame, users, items)
    of_train = _occurring(train.items, rules.n_items)
    seen_items = np.append(of_train, False)  # the last is row -1's
    warm = _occurring(train.users, len(users))[test.codes] & seen_items[test.rows]
    later = test.frame[test.labels == 1] if by_row else test.frame[:0]
    past = Past.of_frames(train_frame, later, items)
    past_of_pairs = past if by_row else Past.of_frames(train_frame[:0], later, items)
    prior_of_pairs = prior if by_row else Histories.empty(len(users))
    distinct = test.relevant
    if not by_row:
        named = test.frame[[USER, ITEM, LABEL]].assign(**{RELEVANT: test.relevant})
        distinct = distinct & ~named.duplicated().to_numpy()
    cutoff_ms = run.need("split_by_time").info["cutoff_ms"]
    parts = groups(
        train,
        test.codes,
        np.where(seen_items[test.rows], test.rows, -1),
        cutoff_ms if run.config.split.by_time else None,
    )
    everyone, query = _select(test, distinct, past, prior, asked, rules, by_row)
    if run.config.features.first_context:
        own = len(train_frame) + np.cumsum(test.labels == 1)[distinct] - 1
        everyone = replace(everyone, latest=_or_first(everyone.latest, query, own))
    rows = test.rows[distinct]

    def part(mask: Bools) -> Slice:
        kept = mask[distinct]
        return everyone.part(query[kept], rows[kept])

    labelled = test.labels >= 0
    judged = warm & labelled & (len(np.unique(test.labels[labelled])) == 2)
    pairs, _ = _select(test, judged, past_of_pairs, prior_of_pairs, asked, rules, by_row=True)
    return EvaluationData(
        items=items,
        train=train,
        cutoff_ms=cutoff_ms,
        asked=asked,
        warm=part(warm),
        all=everyone,
        pairs=LabelledPairs(pairs, test.rows[judged], test.labels[judged]),
        test_counts=count_relevant(run, items) * of_train,
        parts={name: part(mask) for name, mask in parts.items() if (distinct & mask).any()},
    )


def _list_rules(run: Run, items: Ids) -> ListRules:
    """The rules of the run's model, as of the cutoff."""
    config = run.config
    n_items = len(items) - 1
    cutoff_ms = run.need("split_by_time").info["cutoff_ms"] if config.split.by_time else None
    catalogue = open_catalogue(run.step("export_embeddings"), n_items)
    allowed = catalogue.allowed(config.serving.filters, cutoff_ms)
    check_enough(allowed, max(config.evaluation.ks))
    return ListRules(n_items, allowed, config.evaluation.exclude_seen)


def _select(
    test: CodedRows,
    mask: Bools,
    past: Past,
    prior: Histories,
    asked: AskedUsers,
    rules: ListRules,
    by_row: bool,
) -> tuple[Slice, Ints]:
    """The slice of the P rows that `mask` [n] selects, and the query of each row [P].

    prior: what each user code had before the log. by_row: a query for each row.
    """
    users = test.users[mask]
    codes = test.codes[mask]
    if by_row:
        query = np.arange(len(users))
        names = users
        code_of = codes
    else:
        query, names = pd.factorize(users)
        code_of = np.zeros(len(names), dtype=np.int64)
        code_of[query] = codes
    before = None if test.events_before is None else test.events_before[mask]
    histories, latest = past.histories(*past.spans(names, before))
    if len(prior.items):
        histories = prior.take(code_of).followed_by(histories)
    queries = Slice(
        users=np.asarray(names),
        codes=code_of,
        relevant=Relevant.of(query, test.rows[mask], len(names), rules.n_items),
        histories=histories,
        eligible=rules.eligible(histories),
        asked=asked,
        latest=latest,
        position=np.arange(len(names)),
    )
    return queries, query


def _or_first(latest: Ints, query: Ints, events: Ints) -> Ints:
    """The newest event of each query [Q]; of a query that has none, the first of those that it
    should find. events: their positions, in time order; query: of each; both [P]. → [Q]
    """
    first = events[np.unique(query, return_index=True)[1]]
    return np.where(latest < 0, first, latest)


def _occurring(codes: Ints, n: int) -> Bools:
    """Which of 0..n-1 occur among codes below n: [n]."""
    return np.bincount(codes, minlength=n)[:n] > 0
