"""Rows without a user id as users of their own: sessions."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from dssm_core.columns import IMPRESSION, INTERNAL
from dssm_core.data.sql import identifier, literal

SESSION = f"{INTERNAL}session"  # column of rows of files: the file, and the row's number in it


def session_sql(path: str) -> str:
    """SQL: the column SESSION of the rows of one file, in their order. path: the file's, below the
    source's.
    """
    return f"{literal(f'{path}:')} || row_number() OVER () AS {SESSION}"


def impression_sql(names: Collection[str], columns: Mapping[str, object]) -> str | None:
    """SQL: the impression of a row, NULL if it has none; None if the files have no impressions.

    names: the files' columns. columns: canonical name → the files' column.
    """
    name = str(columns.get(IMPRESSION, IMPRESSION))
    if name not in names:
        return None
    return f"nullif(trim(CAST({identifier(name)} AS VARCHAR)), '')"


def user_sql(user: str | None, impression: str | None, time: str) -> str:
    """SQL: the user of a row: its own id, its impression, or the row itself, whichever it has.

    user, impression: SQL, None if the files have none; time: SQL in ms. The time keeps rows of two
    files of one name apart, such as the deliveries of two days.
    """
    row = f"{SESSION} || coalesce(':' || CAST({time} AS VARCHAR), '')"
    of_impression = f"'impression:' || {impression}" if impression else None
    return f"coalesce({', '.join(filter(None, [user, of_impression, row]))})"
