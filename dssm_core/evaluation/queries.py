"""The queries of the test set: who asks, what each query knows, and which items it should find.

There are two slices of the same test rows. `warm`, the headline, holds users and items of the
training set. `all` holds every user and item: an item outside the training set can only be missed,
and a user outside it asks as the unknown user (code 0).

A query is a user with all of the user's distinct test positives; it knows the user's training set.
Where the split is by row (`last_n`), each positive test row is a query, and knows all positives of
the user before it.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow.parquet as pq

from dssm_core.aliases import Bools, Ints
from dssm_core.columns import ITEM, LABEL, TIME, USER
from dssm_core.data.comparison import parse_comparison
from dssm_core.data.splits.last_n import LastN
from dssm_core.evaluation.past import Past
from dssm_core.evaluation.slices import groups
from dssm_core.features.histories import Histories
from dssm_core.features.ids import Ids
from dssm_core.features.popularity import Clicks
from dssm_core.metrics import Relevant
from dssm_core.retrieval.catalogue import check_enough, open_catalogue
from dssm_core.retrieval.eligible import Eligible
from dssm_core.runs.layout import ITEM_IDS_FILE, TEST_FILE, TRAIN_FILE, USER_IDS_FILE
from dssm_core.runs.run import Run


@dataclass(frozen=True)
class Slice:
    """Queries and the items that they should find.

    users [Q]: external ids; codes [Q]: rows of the user embeddings, 0 = unknown; histories: item
    rows that each query knows; eligible: the items that each query may list; latest [Q]: position
    of the newest event of the query among the positives of the training set followed by those of
    the test set, -1 for none.
    """

    users: npt.NDArray[Any]
    codes: Ints
    relevant: Relevant
    histories: Histories
    latest: Ints
    eligible: Eligible

    def take(self, queries: Ints) -> Slice:
        """Some queries [n], to be answered. `relevant` stays that of the whole slice."""
        return Slice(
            self.users[queries],
            self.codes[queries],
            self.relevant,
            self.histories.take(queries),
            self.latest[queries],
            self.eligible.take(queries),
        )


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
    """The training set and the test set of a run, in codes.

    test_counts [N]: positive test rows of each item of the training set; parts: slices of `all` by
    name, see slices.py.
    """

    items: Ids
    train: Clicks
    cutoff_ms: int
    warm: Slice
    all: Slice
    pairs: LabelledPairs
    test_counts: Ints
    parts: dict[str, Slice]


@dataclass(frozen=True)
class _TestRows:
    """Test rows in codes, all [n]: user, user code, item row, label.

    events_before [n]: positives of the user before each row, where the split is by row.
    """

    frame: pd.DataFrame
    users: npt.NDArray[Any]
    codes: Ints
    rows: Ints
    labels: Ints
    rules: ListRules
    events_before: Ints | None

    def select(self, mask: Bools, past: Past, by_row: bool) -> Slice:
        """The slice of the rows that `mask` [n] selects. by_row: a query for each row."""
        before = None if self.events_before is None else self.events_before[mask]
        codes = self.codes[mask]
        return _slice(self.users[mask], codes, self.rows[mask], self.rules, past, before, by_row)


def read_evaluation_data(run: Run) -> EvaluationData:
    """The training set and the test set of a run, in the codes of its exported embeddings."""
    folder = run.step("export_embeddings")
    users = Ids.load(folder / USER_IDS_FILE)
    items = Ids.load(folder / ITEM_IDS_FILE)
    return make_evaluation_data(run, users, items)


def make_evaluation_data(run: Run, users: Ids, items: Ids) -> EvaluationData:
    """The training set and the test set of a run, in the codes of the given ids.

    Rows of label 0 count for `pairs` only.
    """
    by_row = run.config.split.by_row
    train_frame = positives(run.step("split_by_time") / TRAIN_FILE, [USER, ITEM, TIME])
    train = _clicks(train_frame, users, items)
    test = _read_test(run, train_frame, users, items)
    positive = test.labels == 1
    of_train = _occurring(train.items, test.rules.n_items)
    seen_items = np.append(of_train, False)  # the last is row -1's
    seen_users = _occurring(train.users, len(users))
    warm = seen_users[test.codes] & seen_items[test.rows]
    later = test.frame[positive] if by_row else test.frame[:0]
    past = Past.of_frames(train_frame, later, items)
    past_of_pairs = past if by_row else Past.of_frames(train_frame[:0], later, items)
    relevant = positive & _counts_as_relevant(run, test.frame)
    distinct = relevant
    if not by_row:
        distinct = relevant & ~test.frame[[USER, ITEM, LABEL]].duplicated().to_numpy()
    cutoff_ms = run.need("split_by_time").info["cutoff_ms"]
    parts = groups(
        train,
        test.codes,
        np.where(seen_items[test.rows], test.rows, -1),
        cutoff_ms if run.config.split.by_time else None,
    )
    return EvaluationData(
        items=items,
        train=train,
        cutoff_ms=cutoff_ms,
        warm=test.select(distinct & warm, past, by_row),
        all=test.select(distinct, past, by_row),
        pairs=_labelled_pairs(test, warm, past_of_pairs),
        test_counts=_test_counts(test, relevant, seen_items),
        parts={
            name: test.select(distinct & mask, past, by_row)
            for name, mask in parts.items()
            if (distinct & mask).any()
        },
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


def label_before(test: pd.DataFrame) -> Ints:
    """How many positive test rows of the same user come before each test row: [n]."""
    before = test.groupby(USER, sort=False)[LABEL].cumsum() - test[LABEL]
    return before.to_numpy(dtype=np.int64)


def make_slice(
    users: npt.NDArray[Any], codes: Ints, rows: Ints, n_items: int, past: Past | None = None
) -> Slice:
    """A slice with one query for each user.

    From positives [P]: external user, user code, item row (-1: not in the catalogue).
    """
    known = past or Past.of(pd.Series(users[:0]), rows[:0])
    return _slice(users, codes, rows, ListRules(n_items), known, None, by_row=False)


def positives(file: Path, columns: list[str]) -> pd.DataFrame:
    """The rows of label 1 in the order of the file, which is by time."""
    table = pq.read_table(file, columns=columns, filters=[(LABEL, "=", 1)])
    frame: pd.DataFrame = table.to_pandas()
    return frame


def _read_test(run: Run, train: pd.DataFrame, users: Ids, items: Ids) -> _TestRows:
    test = pd.read_parquet(run.step("split_by_time") / TEST_FILE)
    events_before = None
    if run.config.split.by_row:
        in_train = test[USER].map(train[USER].value_counts()).fillna(0).to_numpy(dtype=np.int64)
        events_before = in_train + label_before(test)
    return _TestRows(
        frame=test,
        users=test[USER].to_numpy(),
        codes=users.encode(test[USER]),
        rows=items.encode(test[ITEM]) - 1,
        labels=test[LABEL].to_numpy(dtype=np.int64),
        rules=_list_rules(run, items),
        events_before=events_before,
    )


def _counts_as_relevant(run: Run, test: pd.DataFrame) -> Bools:
    """Which test rows `split.relevant` lets count as relevant: [n]."""
    split = run.config.split
    if isinstance(split, LastN) and split.relevant:
        return np.asarray(parse_comparison(split.relevant).mask(test), dtype=np.bool_)
    return np.ones(len(test), dtype=np.bool_)


def _labelled_pairs(test: _TestRows, warm: Bools, past: Past) -> LabelledPairs:
    """The warm rows, where the test set has both labels; none otherwise."""
    both = test.labels.any() and not test.labels.all()
    judged = warm if both else np.zeros_like(warm)
    queries = test.select(judged, past, by_row=True)
    return LabelledPairs(queries, test.rows[judged], test.labels[judged])


def _test_counts(test: _TestRows, relevant: Bools, seen_items: Bools) -> Ints:
    rows = test.rows[relevant & (test.rows >= 0)]
    counts: Ints = np.bincount(rows, minlength=test.rules.n_items) * seen_items[:-1]
    return counts


def _slice(
    users: Any,
    codes: Ints,
    rows: Ints,
    rules: ListRules,
    past: Past,
    before: Ints | None,
    by_row: bool,
) -> Slice:
    """Queries from test rows [P].

    before [P]: how many events of the user each query knows; None: all of `past`.
    """
    if by_row:
        query = np.arange(len(users))
        names = users
        code_of = codes
    else:
        query, names = pd.factorize(users)
        code_of = np.zeros(len(names), dtype=np.int64)
        code_of[query] = codes
    histories, latest = past.histories(*past.spans(names, before))
    relevant = Relevant.of(query.astype(np.int64), rows, len(names), rules.n_items)
    eligible = rules.eligible(histories)
    return Slice(np.asarray(names), code_of, relevant, histories, latest, eligible)


def _clicks(frame: pd.DataFrame, users: Ids, items: Ids) -> Clicks:
    codes = users.encode(frame[USER])
    rows = items.encode(frame[ITEM]) - 1
    times = frame[TIME].to_numpy(dtype=np.int64)
    known = rows >= 0
    return Clicks(codes[known], rows[known], times[known], len(items) - 1)


def _occurring(codes: Ints, n: int) -> Bools:
    """Which of 0..n-1 occur among codes below n: [n]."""
    return np.bincount(codes, minlength=n)[:n] > 0
