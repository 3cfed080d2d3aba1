"""The test set in codes: the rows of the asked users, and the counts of all rows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow.parquet as pq

from dssm_core.aliases import Bools, Ints
from dssm_core.columns import ITEM, LABEL, USER
from dssm_core.config.conditions import Condition
from dssm_core.config.row_conditions import read_row_condition
from dssm_core.data.database import connect
from dssm_core.data.row_conditions import rows_sql, rows_that_meet
from dssm_core.data.sql import parquet
from dssm_core.evaluation.asked import AskedUsers
from dssm_core.features.ids import Ids
from dssm_core.runs.layout import TEST_FILE
from dssm_core.runs.run import Run


@dataclass(frozen=True)
class CodedRows:
    """Test rows of the asked users in codes, all [n]: user, user code, item row, label (-1 for rows
    that are neither positives nor negatives).

    relevant [n]: which positives should be found. events_before [n]: positives of the user before
    each row, where the split is by row.
    """

    frame: pd.DataFrame
    users: npt.NDArray[Any]
    codes: Ints
    rows: Ints
    labels: Ints
    relevant: Bools
    events_before: Ints | None


def read_test_rows(
    run: Run, asked: AskedUsers, train: pd.DataFrame, users: Ids, items: Ids
) -> CodedRows:
    """The test rows of the asked users. train: their positives of the training set.

    A row is relevant if it is a positive and fulfils `split.relevant`.
    """
    test = asked.test_rows()
    labels = test[LABEL].fillna(-1).to_numpy(dtype=np.int64)
    relevant = labels == 1
    if condition := _relevant(run):
        relevant &= rows_that_meet(condition, test)
    events_before = None
    if run.config.split.by_row:
        in_train = test[USER].map(train[USER].value_counts()).fillna(0).to_numpy(dtype=np.int64)
        events_before = in_train + positives_before(test[USER], labels == 1)
    return CodedRows(
        frame=test,
        users=test[USER].to_numpy(),
        codes=_codes(users, test[USER]),
        rows=_codes(items, test[ITEM]) - 1,
        labels=labels,
        relevant=relevant,
        events_before=events_before,
    )


def count_relevant(run: Run, items: Ids) -> Ints:
    """The relevant rows of each item in the test set, of all users: [N]."""
    file = run.step("split_by_time") / TEST_FILE
    conditions = [f"{LABEL} = 1"]
    if condition := _relevant(run):
        conditions.append(f"{rows_sql(condition, pq.read_schema(file).names)} = 1")
    where = " AND ".join(conditions)
    with connect(file.parent, run.config.resources) as con:
        query = f"SELECT {ITEM}, count(*) AS n FROM {parquet(file)} WHERE {where} GROUP BY {ITEM}"
        counts = con.sql(query).df()
    rows = _codes(items, counts[ITEM]) - 1
    known = rows >= 0
    total = np.bincount(rows[known], counts["n"][known], len(items) - 1)
    return total.astype(np.int64)


def positives_before(users: pd.Series[Any], positive: Bools) -> Ints:
    """How many positive test rows of the same user come before each test row: [n]."""
    counts: pd.Series[Any] = pd.Series(positive.astype(np.int64), index=users.index)
    before: Ints = (counts.groupby(users, sort=False).cumsum() - counts).to_numpy(dtype=np.int64)
    return before


def _relevant(run: Run) -> Condition | None:
    """What `split.relevant` asks of a row; None where every positive is relevant."""
    relevant = run.config.split.relevant
    return read_row_condition(relevant) if relevant else None


def _codes(ids: Ids, values: pd.Series[Any]) -> Ints:
    """As `ids.encode`, without a hash table of all ids: the distinct values are looked up. [n]"""
    position, names = pd.factorize(values)
    return ids.find(names.tolist())[position]
