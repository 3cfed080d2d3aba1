"""The rows of a request: checks of what a client sent, and its ids as codes.

Client engineers read these messages in answers with HTTP status 400: each one names the value, and
what to send instead.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
import pandas as pd

from dssm_core.aliases import Ints
from dssm_core.columns import ITEM, USER
from dssm_core.config import Features
from dssm_core.errors import DataError, shorten, shown
from dssm_core.families import did_you_mean
from dssm_core.features.histories import Histories
from dssm_core.features.ids import Ids, canonical_ids

HISTORY = "history"  # the column with a user's item ids, newest last
EXCLUDE = "exclude"  # the column with item ids that are not to be listed
LISTS = (list, tuple, np.ndarray)
DEFAULT_K = 200
MAX_K = 10_000  # of one answer: more would be held in memory for each row of a request
MAX_ROWS = 10_000  # of one request
MAX_IDS = 1_000_000  # in all lists of one request


@dataclass(frozen=True)
class Queries:
    """The rows of a request, in codes.

    codes: [B], 0 = unknown user. histories, exclude: item rows of each row's lists, unknown ids
    left out. rows: the request, for its context and user columns.
    """

    codes: Ints
    histories: Histories
    exclude: Histories
    rows: pd.DataFrame

    @classmethod
    def of_users(cls, codes: Ints) -> Queries:
        """Users [B] about whom a request says nothing else."""
        nothing = Histories.empty(len(codes))
        return cls(codes, nothing, nothing, pd.DataFrame(index=range(len(codes))))

    def __len__(self) -> int:
        return len(self.codes)

    def part(self, first: int, last: int) -> Queries:
        """Rows first..last-1."""
        return Queries(
            self.codes[first:last],
            self.histories.part(first, last),
            self.exclude.part(first, last),
            self.rows.iloc[first:last],
        )


@dataclass(frozen=True)
class Rules:
    """What lists may hold, beside the items that a row excludes itself.

    exclude_seen: leave out the row's history and what its user has seen. filters: conditions on
    item columns. as_of_ms: items must be available at this time; None: at any time.
    """

    exclude_seen: bool
    filters: tuple[str, ...]
    as_of_ms: int | None


def column_names(features: Features) -> list[str]:
    """The columns that a request may have."""
    of = features.columns
    users = [feature.column for feature in of.user if feature.in_table]
    context = [feature.column for feature in of.context]
    return list(dict.fromkeys([USER, HISTORY, EXCLUDE, *context, *users]))


def read_queries(frame: pd.DataFrame, users: Ids, items: Ids) -> Queries:
    """The rows [B] of a request as codes. Raises DataError if a row is malformed."""
    if USER not in frame and HISTORY not in frame:
        raise DataError(
            f"the input has neither {USER!r} nor {HISTORY!r}, but columns"
            f" {shorten(list(frame.columns))}: give {USER!r}, {HISTORY!r} (a list of {ITEM} values,"
            " newest last) or both"
        )
    cells = _user_cells(frame)
    return Queries(
        codes=users.find(canonical_ids(cells, users.whole_numbers)),
        histories=_item_lists(frame, HISTORY, items),
        exclude=_item_lists(frame, EXCLUDE, items),
        rows=frame,
    )


def check_columns(frame: pd.DataFrame, names: Sequence[str]) -> None:
    """Raise DataError if a request has another column than `names`."""
    unknown = [str(column) for column in frame.columns.tolist() if column not in names]
    if unknown:
        raise DataError(
            f"the input has a column {shorten(unknown[0])!r} that this model does not use:"
            f" {did_you_mean(unknown[0], list(names))}"
        )


def count_ids(frame: pd.DataFrame) -> int:
    """Number of item ids in the lists of a request."""
    cells = chain.from_iterable(frame.get(name, ()) for name in (HISTORY, EXCLUDE))
    return sum(len(cell) for cell in cells if isinstance(cell, LISTS))


def check_size(rows: int, ids: int = 0) -> None:
    """Raise DataError if a request has no rows, or too many rows or ids."""
    if not rows:
        raise DataError(
            f"the input has no rows: give one row for each user, with {USER!r}, {HISTORY!r} or both"
        )
    for what, number, most in (("rows", rows, MAX_ROWS), ("item ids", ids, MAX_IDS)):
        if number > most:
            raise DataError(
                f"the input has {number:,} {what}, and a request may have {most:,}: send several"
                " requests, or write the lists of all users with `dssm recommend`"
            )


def check_k(k: Any, most: int | None = None) -> None:
    """Raise DataError unless k is a whole number of 1 or more, and at most `most`."""
    whole = isinstance(k, int | np.integer) and not isinstance(k, bool)
    if not whole or k < 1 or (most is not None and k > most):
        limits = f"from 1 to {most:,}" if most else "of 1 or more"
        raise DataError(
            f"k is {shown(k)}, but it must be a whole number {limits}: the number of items"
            " to return for each row"
        )


def _user_cells(frame: pd.DataFrame) -> list[Any]:
    """The user id of each row, None without the column."""
    if USER not in frame:
        return [None] * len(frame)
    cells = frame[USER].tolist()
    for row, cell in enumerate(cells):
        if isinstance(cell, (*LISTS, dict)):
            raise DataError(
                f"{USER} in row {row} is {shorten(cell)}, which is not a single id: give one id in"
                " each row (in a request to a server, as dataframe_records or dataframe_split)"
            )
    return cells


def _item_lists(frame: pd.DataFrame, column: str, items: Ids) -> Histories:
    """The known items of a column of lists, in item rows."""
    if column not in frame:
        return Histories.empty(len(frame))
    cells = [_checked(cell, column, row) for row, cell in enumerate(frame[column].tolist())]
    return _as_rows(cells, items)


def _checked(cell: Any, column: str, row: int) -> Iterable[Any]:
    if isinstance(cell, LISTS):
        nested = next((each for each in cell if isinstance(each, (*LISTS, dict))), None)
        if nested is None:
            return cell
        problem = f"has {shorten(nested)} in its list"
    elif pd.isna(cell):
        return ()
    else:
        kind = "text" if isinstance(cell, str) else f"of type {type(cell).__name__}"
        problem = f"{shown(cell)}, is {kind}"
    newest = ", newest last, or [] for a user without a history" if column == HISTORY else ""
    raise DataError(f"{column} in row {row}, {problem}: give a list of {ITEM} values{newest}")


def _as_rows(cells: list[Any], items: Ids) -> Histories:
    query = np.repeat(np.arange(len(cells)), [len(cell) for cell in cells])
    codes = items.find(canonical_ids(list(chain.from_iterable(cells)), items.whole_numbers))
    known = codes > 0
    return Histories.of(query[known], codes[known] - 1, len(cells))
