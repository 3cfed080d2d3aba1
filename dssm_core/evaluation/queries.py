"""Who asks in the test part and what they should find, in codes; and what each knew when asking.

Two slices of the same rows. `warm` (the headline): users and items that train has seen. `all`:
everyone and everything; an item that train has not seen can only be missed, a user it has not seen
asks as the unknown user. A query is a user with all of the user's distinct test positives, told
what train knows; where the split is by row (`last_n`), each positive test row is a query of its
own, told all positives before it.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow.parquet as pq

from dssm_core.aliases import Ints
from dssm_core.columns import ITEM, LABEL, TIME, USER
from dssm_core.data.comparison import parse_comparison
from dssm_core.data.splits.last_n import LastN
from dssm_core.evaluation.slices import groups
from dssm_core.features.histories import Histories
from dssm_core.features.ids import Ids
from dssm_core.features.popularity import Clicks
from dssm_core.metrics import Relevant
from dssm_core.retrieval.bundle import HISTORY
from dssm_core.runs.layout import ITEM_IDS_FILE, TEST_FILE, TRAIN_FILE, USER_IDS_FILE, table_file
from dssm_core.runs.run import Run


@dataclass(frozen=True)
class Slice:
    """Queries and their answers.

    users [Q]: external ids; codes [Q]: rows of the user embeddings (0 = unknown); histories: item
    rows of what each is known to have taken; latest [Q]: the newest row of that among the positives
    of train, then of test (-1: none).
    """

    users: npt.NDArray[Any]
    codes: Ints
    relevant: Relevant
    histories: Histories
    latest: Ints


@dataclass(frozen=True)
class Pairs:
    """Test rows of known users and items, as queries of their own: asked [n], the item row and the
    label of each [n].
    """

    asked: Slice
    items: Ints
    labels: Ints


@dataclass(frozen=True)
class Window:
    """A run's split in codes: train positives, both slices, all judged rows, the test part's clicks
    an item [N], and parts of `all`.
    """

    items: Ids
    train: Clicks
    cutoff_ms: int
    warm: Slice
    all: Slice
    pairs: Pairs
    test_counts: Ints
    parts: dict[str, Slice]


@dataclass(frozen=True)
class Past:
    """Positives by user, oldest first. users: who has any; ptr [U + 1]; items [n] rows (-1
    unknown); events [n]: their order in time.
    """

    users: pd.Index[Any]
    ptr: Ints
    items: Ints
    events: Ints

    @classmethod
    def of(cls, users: pd.Series[Any], items: Ints) -> Past:
        """From positives in time order: external user and item row of each."""
        codes, names = pd.factorize(users)
        order = np.argsort(codes, kind="stable")
        ptr = np.concatenate([[0], np.cumsum(np.bincount(codes, minlength=len(names)))]).astype(
            np.int64
        )
        return cls(pd.Index(names), ptr, items[order], order)

    def ends(self, users: Any, count: Ints | None = None) -> tuple[Ints, Ints]:
        """Where each user's past begins, and ends after all or the first `count` [Q] events. → 2 x
        [Q].
        """
        code = self.users.get_indexer(pd.Index(users))
        begin = np.where(code >= 0, self.ptr[code], 0)
        end = np.where(code >= 0, self.ptr[code + 1], 0) if count is None else begin + count
        return begin, end

    def told(self, begin: Ints, end: Ints) -> tuple[Histories, Ints]:
        """The known items of each span, and the newest event of it (-1 where it is empty)."""
        counts = end - begin
        query = np.repeat(np.arange(len(begin)), counts)
        items = self.items[
            np.arange(counts.sum()) + np.repeat(begin - np.cumsum(counts) + counts, counts)
        ]
        latest = np.full(len(begin), -1, dtype=np.int64)
        latest[counts > 0] = self.events[end[counts > 0] - 1]
        return Histories.of(query[items >= 0], items[items >= 0], len(begin)), latest


def read_window(run: Run) -> Window:
    """Train and test of a run in the codes of its exported embeddings."""
    folder = run.step("export_embeddings")
    return make_window(run, Ids.load(folder / USER_IDS_FILE), Ids.load(folder / ITEM_IDS_FILE))


def make_window(run: Run, users: Ids, items: Ids) -> Window:
    """Train and test of a run in the codes of given vocabularies; rows with label 0 are no clicks."""
    folder, n_items, split = run.step("split_by_time"), len(items) - 1, run.config.split
    by_row = split.by_row
    train_frame, test = (
        positives(folder / TRAIN_FILE, [USER, ITEM, TIME]),
        pd.read_parquet(folder / TEST_FILE),
    )
    train = _clicks(train_frame, users, items)
    rows, codes, label = (
        items.encode(test[ITEM]) - 1,
        users.encode(test[USER]),
        test[LABEL].to_numpy(dtype=np.int64),
    )
    seen_items = np.append(_seen(train.items, n_items), False)  # its last place is row -1's
    known, positive = _seen(train.users, len(users))[codes] & seen_items[rows], label == 1
    past, before = _past(train_frame, test[positive] if by_row else test[:0], items), None
    if by_row:
        taken = test[USER].map(train_frame[USER].value_counts()).fillna(0).to_numpy(dtype=np.int64)
        before = taken + label_before(test)

    def asked(kept: npt.NDArray[np.bool_], each_row: bool, past: Past = past) -> Slice:
        told = None if before is None else before[kept]
        return _slice(
            test[USER].to_numpy()[kept], codes[kept], rows[kept], n_items, past, told, each_row
        )

    if isinstance(split, LastN) and split.relevant:
        positive &= parse_comparison(split.relevant).mask(test)
    wanted = positive if by_row else positive & ~test[[USER, ITEM, LABEL]].duplicated().to_numpy()
    judged = known if label.any() and not label.all() else np.zeros_like(known)
    pairs = Pairs(
        asked(judged, True, past if by_row else _past(train_frame[:0], test[:0], items)),
        rows[judged],
        label[judged],
    )
    counts = np.bincount(rows[positive & (rows >= 0)], minlength=n_items) * seen_items[:-1]
    cutoff_ms = run.need("split_by_time").info["cutoff_ms"]
    found = groups(
        train, codes, np.where(seen_items[rows], rows, -1), cutoff_ms if split.by_time else None
    )
    parts = {
        name: asked(wanted & mask, by_row) for name, mask in found.items() if (wanted & mask).any()
    }
    return Window(
        items,
        train,
        cutoff_ms,
        asked(wanted & known, by_row),
        asked(wanted, by_row),
        pairs,
        counts,
        parts,
    )


def label_before(test: pd.DataFrame) -> Ints:
    """How many positive test rows of its own user came before each test row. → [n]"""
    return (test.groupby(USER, sort=False)[LABEL].cumsum() - test[LABEL]).to_numpy(dtype=np.int64)


def make_slice(
    users: npt.NDArray[Any], codes: Ints, rows: Ints, n_items: int, past: Past | None = None
) -> Slice:
    """A slice with one query a user from positives [P]: external user, user code, item row (-1: not
    in the catalogue).
    """
    return _slice(
        users,
        codes,
        rows,
        n_items,
        past or Past.of(pd.Series(users[:0]), rows[:0]),
        None,
        each_row=False,
    )


def _slice(
    users: Any,
    codes: Ints,
    rows: Ints,
    n_items: int,
    past: Past,
    before: Ints | None,
    each_row: bool,
) -> Slice:
    """From test rows; before [P]: how many of the user's events came before each, None where all of
    the past did.
    """
    if each_row:
        query, names, code_of = np.arange(len(users)), users, codes
    else:
        query, names = pd.factorize(users)
        code_of = np.zeros(len(names), dtype=np.int64)
        code_of[query] = codes
    histories, latest = past.told(*past.ends(names, before))
    return Slice(
        np.asarray(names),
        code_of,
        Relevant.of(query.astype(np.int64), rows, len(names), n_items),
        histories,
        latest,
    )


def users_frame(run: Run, asked: Slice, length: int, context: tuple[str, ...] = ()) -> pd.DataFrame:
    """What a served model is told of each query: user_id, history (at most `length` items, newest
    last), latest context.
    """
    items = Ids.load(run.step("export_embeddings") / ITEM_IDS_FILE)
    frame = pd.DataFrame({USER: asked.users})
    newest = asked.histories.latest(length)
    frame[HISTORY] = (
        [cell.tolist() for cell in np.split(items.decode(newest.items + 1), newest.ptr[1:-1])]
        if len(frame)
        else []
    )
    files = [run.step("split_by_time") / table_file(part) for part in ("train", "test")]
    if told := [name for name in context if name in pq.read_schema(files[0]).names]:
        events = pd.concat([positives(file, told) for file in files], ignore_index=True)
        frame[told] = events.reindex(asked.latest)[told].to_numpy()
    return frame


def positives(file: Path, columns: list[str]) -> pd.DataFrame:
    """The rows of label 1 in file order, which is time order."""
    frame: pd.DataFrame = pq.read_table(
        file, columns=columns, filters=[(LABEL, "=", 1)]
    ).to_pandas()
    return frame


def _past(train: pd.DataFrame, later: pd.DataFrame, items: Ids) -> Past:
    events = pd.concat([train[[USER, ITEM]], later[[USER, ITEM]]])
    return Past.of(events[USER], items.encode(events[ITEM]) - 1)


def _clicks(frame: pd.DataFrame, users: Ids, items: Ids) -> Clicks:
    codes, rows = users.encode(frame[USER]), items.encode(frame[ITEM]) - 1
    known = rows >= 0
    return Clicks(
        codes[known], rows[known], frame[TIME].to_numpy(dtype=np.int64)[known], len(items) - 1
    )


def _seen(codes: Ints, n: int) -> npt.NDArray[np.bool_]:
    """Which of 0..n-1 occur; n is at least one more than every code."""
    return np.bincount(codes, minlength=n)[:n] > 0
