"""Rows that hold several items: one row becomes a row for each item."""

from __future__ import annotations

from typing import Annotated, Any

from duckdb import DuckDBPyRelation
from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from dssm_core.columns import IMPRESSION, INTERNAL, LABEL
from dssm_core.data.sources.sessions import SESSION
from dssm_core.data.sql import identifier, literal
from dssm_core.errors import DataError, shown
from dssm_core.families import did_you_mean

PART = f"{INTERNAL}part"


def _printable(text: str) -> str:
    if "\0" in text:
        raise ValueError(f"{shown(text)} has a NUL character: remove it")
    return text


Mark = Annotated[str, Field(min_length=1, max_length=4), AfterValidator(_printable)]


class Explode(BaseModel):
    """A column whose cells hold several items: lists (Parquet, JSON), or text such as `N1 N2`. Each
    item becomes a row, with the other columns of its row. A cell without an item stays one row
    without an item, which goes to quarantine. The column `impression_id` numbers the rows of the
    file, unless the file has one. A list of objects becomes a column for each key, such as
    `shown.id`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)
    column: str
    """The file's column."""
    separator: Mark = " "
    """What separates the items of a text; empty items are left out. Lists need none."""
    label_after: Mark | None = None
    """What separates an item from its label, such as `-` for `N1-1 N2-0`: the last one in the text
    counts. The labels become the column `label`. Null for items without one."""


def exploded(
    raw: DuckDBPyRelation, explode: Explode, has_impressions: bool, where: str, file: int = 0
) -> DuckDBPyRelation:
    """The rows of the items, in the order of the rows and of the items in a row.

    has_impressions: whether the log maps its own column to `impression_id`. where: the files, for
    error messages. file: number of the file, so that numbers of rows differ between files. Raises
    DataError when the column is missing or holds single values.
    """
    types = dict(zip(raw.columns, raw.types, strict=True))
    if explode.column not in types:
        raise DataError(
            f"{where} has no column {explode.column!r}, which explode names:"
            f" {did_you_mean(explode.column, [name for name in types if name != SESSION])}"
        )
    if explode.label_after is not None and LABEL in types:
        raise DataError(
            f"{where} has a column {LABEL!r}, but explode.label_after makes one: map the file's to"
            f" another name, such as {{{LABEL}_2: {LABEL}}}, or leave label_after out"
        )
    parts = _parts(types[explode.column], explode, where)
    rest = ", ".join(identifier(name) for name in types if name != explode.column)
    kept = f"{rest}, " if rest else ""
    if not has_impressions and IMPRESSION not in types:
        number = "CAST(row_number() OVER () - 1 AS VARCHAR)"
        prefix = f"{literal(f'{file}-')} || " if file else ""
        raw = raw.project(f"*, {prefix}{number} AS {IMPRESSION}")
        kept += f"{IMPRESSION}, "
    rows = raw.project(
        f"{kept}unnest(CASE WHEN coalesce(len({parts}), 0) = 0 THEN [NULL] ELSE {parts} END)"
        f" AS {PART}"
    )
    kind: Any = rows.types[-1]
    if kind.id == "struct" and explode.label_after is not None:
        raise DataError(
            f"{where}: explode.label_after is for items that are text, but {explode.column!r} holds"
            f" lists of objects: leave it out, and map a key, such as {{{LABEL}:"
            f" {explode.column}.{kind.children[0][0]}}}"
        )
    return rows.project(kept + ", ".join(_item_columns(kind, explode)))


def _parts(kind: Any, explode: Explode, where: str) -> str:
    """SQL: the items of a cell as a list."""
    column = identifier(explode.column)
    if kind.id in ("list", "array"):
        return f"{column}[:]"
    if kind.id in ("varchar", "enum"):
        parts = f"string_split(CAST({column} AS VARCHAR), {literal(explode.separator)})"
        return f"list_filter({parts}, lambda part: trim(part) <> '')"
    raise DataError(
        f"{where}: explode.column {explode.column!r} has the type {kind}, but must hold lists, or"
        " text with a separator: take another column, or leave explode out"
    )


def _item_columns(kind: Any, explode: Explode) -> list[str]:
    """SQL of the columns that the items become."""
    if kind.id == "struct":
        return [
            f"{PART}.{identifier(key)} AS {identifier(f'{explode.column}.{key}')}"
            for key, _ in kind.children
        ]
    name = identifier(explode.column)
    if explode.label_after is None:
        return [f"{PART} AS {name}"]
    mark = literal(explode.label_after)
    words = f"string_split(CAST({PART} AS VARCHAR), {mark})"
    return [
        f"CASE WHEN len({words}) > 1 THEN array_to_string({words}[:-2], {mark})"
        f" ELSE {PART} END AS {name}",
        f"CASE WHEN len({words}) > 1 THEN trim({words}[-1]) END AS {LABEL}",
    ]
