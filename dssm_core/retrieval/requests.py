"""The rows of a request: checks of what a client sent, and its ids in the type of the vocabulary.

Client engineers read these messages in answers with HTTP status 400: each one names the value, and
what to send instead.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from dssm_core.columns import ITEM, USER
from dssm_core.errors import DataError
from dssm_core.features.ids import Ids

HISTORY = "history"  # the column with a user's item ids, newest last
LISTS = (list, tuple, np.ndarray)
MAX_K = 10_000  # of one answer: more would be held in memory for each row of a request


def check_frame(frame: pd.DataFrame) -> None:
    """Raise DataError unless each row of `frame` has one user id, a list of item ids, or both."""
    if USER not in frame and HISTORY not in frame:
        raise DataError(
            f"the input has neither {USER!r} nor {HISTORY!r}, but columns {list(frame.columns)}:"
            f" give {USER!r}, {HISTORY!r} (a list of {ITEM} values, newest last) or both"
        )
    _check_user_ids(list(frame.get(USER, ())))
    _check_histories(list(frame.get(HISTORY, ())))


def check_rows(frame: pd.DataFrame) -> None:
    """Raise DataError if `frame` has no rows."""
    if frame.empty:
        raise DataError(
            f"the input has no rows: give one row for each user, with {USER!r}, {HISTORY!r} or both"
        )


def check_k(k: Any, most: int | None = None) -> None:
    """Raise DataError unless k is a whole number of 1 or more, and at most `most`."""
    whole = isinstance(k, int | np.integer) and not isinstance(k, bool)
    if not whole or k < 1 or (most is not None and k > most):
        limits = f"from 1 to {most:,}" if most else "of 1 or more"
        raise DataError(
            f"k is {k!r}, but it must be a whole number {limits}: the number of items to return for"
            " each row"
        )


def _check_user_ids(cells: list[Any]) -> None:
    for row, cell in enumerate(cells):
        if isinstance(cell, (*LISTS, dict)):
            raise DataError(
                f"{USER} in row {row} is {cell!r}, which is not a single id: give one id in each"
                " row (in a request to a server, as dataframe_records or dataframe_split)"
            )


def _check_histories(cells: list[Any]) -> None:
    for row, cell in enumerate(cells):
        if not isinstance(cell, LISTS) and not pd.isna(cell):
            kind = "text" if isinstance(cell, str) else f"of type {type(cell).__name__}"
            raise DataError(
                f"{HISTORY} in row {row}, {cell!r}, is {kind}: give a list of {ITEM} values, newest"
                " last, or [] for a user without a history"
            )


def as_ids(values: pd.Series[Any], ids: Ids) -> pd.Series[Any]:
    """Ids in the type of the vocabulary, so that '7' matches 7 and 7 matches '7'.

    A value that cannot be converted becomes None, which is an unknown id.
    """
    return pd.Series(cast_ids(values.tolist(), ids), index=values.index, dtype=object)


def cast_ids(values: list[Any], ids: Ids) -> list[Any]:
    """As `as_ids`, for a list."""
    if pd.api.types.is_integer_dtype(ids.index.dtype):
        return [_whole_number(value) for value in values]
    return [value if value is None or isinstance(value, str) else str(value) for value in values]


def _whole_number(value: Any) -> int | None:
    try:
        return int(value)
    except (TypeError, ValueError):
        return None
