"""Columns that hold what a user had taken before the log began, without times."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict

from dssm_core.data.sources.explode import Mark
from dssm_core.data.sources.ids import id_text
from dssm_core.data.sources.sessions import SESSION
from dssm_core.data.sql import identifier, literal
from dssm_core.errors import DataError
from dssm_core.families import did_you_mean

TEXTS = ("varchar", "enum")  # types of DuckDB
LISTS = ("list", "array")
NESTED = ("struct", "map", "union", *LISTS)


class PriorItems(BaseModel):
    """A column with the items that a user had taken before the log, oldest first: lists (Parquet,
    JSON), or text such as `N1 N2`. They have no times, so they are no clicks: they are the oldest
    items of the user's history, and seen items. Of each user the cell of the earliest row in the
    window counts, because later cells may hold clicks of the log.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)
    column: str
    """The file's column."""
    separator: Mark = " "
    """What separates the items of a text; empty items are left out. Lists need none."""


def prior_sql(prior: PriorItems, types: Mapping[str, Any], where: str) -> str:
    """SQL: the ids of a cell as a list of texts.

    types: DuckDB's type of each column. where: the files, for error messages. Raises DataError when
    the column is missing or holds single values.
    """
    if prior.column not in types:
        raise DataError(
            f"{where} has no column {prior.column!r}, which history names:"
            f" {did_you_mean(prior.column, [name for name in types if name != SESSION])}"
        )
    kind = types[prior.column]
    column = identifier(prior.column)
    if kind.id in LISTS and kind.children[0][1].id not in NESTED:
        items = f"{column}[:]"
        inner = str(kind.children[0][1])
    elif kind.id in TEXTS:
        items = f"string_split(CAST({column} AS VARCHAR), {literal(prior.separator)})"
        inner = "VARCHAR"
    else:
        raise DataError(
            f"{where}: history.column {prior.column!r} has the type {kind}, but must hold lists of"
            " ids, or text with a separator: take another column, or leave history out"
        )
    ids = f"list_transform({items}, lambda item: {id_text('item', inner)})"
    return f"list_filter({ids}, lambda item: item IS NOT NULL)"
