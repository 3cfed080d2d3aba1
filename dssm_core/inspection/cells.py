"""Columns whose cells hold several items: what was shown or taken together, and histories."""

from __future__ import annotations

from dataclasses import replace

from duckdb import DuckDBPyConnection

from dssm_core.columns import IMPRESSION
from dssm_core.data.sources.explode import Explode, exploded
from dssm_core.data.sources.prior import PriorItems
from dssm_core.data.sql import identifier, literal
from dssm_core.errors import shown
from dssm_core.inspection import words
from dssm_core.inspection.columns import Column, describe, separator_of
from dssm_core.inspection.tables import Table
from dssm_core.inspection.words import words_of

MARKS = ("-", ":", "_", "=")  # between an item and its label
FIRST_ROWS = 1_000  # in which cells are looked at
SEVERAL = 0.2  # share of the cells that must hold several items


def with_item_rows(con: DuckDBPyConnection, table: Table) -> Table:
    """The table with a row for each item, if a column has items with labels such as `N1-1 N2-0`, or
    the plural name of items and several in a cell; else the table itself. With its column of
    histories, if it has one.
    """
    explode = _find_explode(con, table)
    if explode is None:
        return replace(table, history=_by_name(con, table))
    sample = f"{table.sample}_items"
    where = shown(table.group.pattern)
    rows = exploded(con.table(table.sample), explode, IMPRESSION in table.columns, where)
    rows.create(sample)
    history = _by_name(con, table) if table.header else _by_form(con, table, explode, sample)
    own = frozenset(name for name, column in table.columns.items() if column.is_unique)
    columns = describe(con, sample)
    return replace(
        table, sample=sample, columns=columns, explode=explode, history=history, unique=own
    )


def _find_explode(con: DuckDBPyConnection, table: Table) -> Explode | None:
    for name, column in table.columns.items():
        for mark in MARKS if column.type == "VARCHAR" else ():
            if _is_labelled(con, table.sample, name, mark):
                return Explode(column=name, label_after=mark)
    if any(set(words_of(name)) & words.ITEM for name in table.columns):
        return None
    for name, column in table.columns.items():
        plural = any(word[-1:] == "s" and word[:-1] in words.ITEM for word in words_of(name))
        separator = _separator(con, table.sample, column) if plural else None
        if separator:
            return Explode(column=name, separator=separator)
    return None


def _separator(con: DuckDBPyConnection, sample: str, column: Column) -> str | None:
    """The separator of several values in a cell; a blank for lists, which need none."""
    if column.is_list:
        return " "
    return separator_of(con, sample, column.name) if column.type == "VARCHAR" else None


def _is_labelled(con: DuckDBPyConnection, sample: str, name: str, mark: str) -> bool:
    """Whether cells hold items with a 0 or 1 behind a mark, and several of them."""
    words_sql = f"string_split(trim({identifier(name)}), ' ')"
    query = f"""
    WITH cells AS (SELECT {words_sql} AS parts FROM {sample}
        WHERE trim({identifier(name)}) <> '' LIMIT {FIRST_ROWS}),
    parts AS (SELECT unnest(parts) AS part FROM cells)
    SELECT (SELECT avg(CAST(len(parts) > 1 AS INT)) FROM cells),
        (SELECT avg(CAST(regexp_full_match(part, {literal(f".+[{mark}][01]")}) AS INT)) FROM parts),
        (SELECT count(DISTINCT part[-1]) FROM parts)
    """
    several, labelled, labels = con.execute(query).fetchall()[0]
    return (several or 0) >= SEVERAL and labelled == 1.0 and labels == 2


def _by_name(con: DuckDBPyConnection, table: Table) -> PriorItems | None:
    """The column that is called a history and holds several values in a cell."""
    for name, column in table.columns.items():
        called = set(words_of(name)) & words.HISTORY
        if called and (separator := _separator(con, table.sample, column)):
            return PriorItems(column=name, separator=separator)
    return None


def _by_form(
    con: DuckDBPyConnection, table: Table, explode: Explode, sample: str
) -> PriorItems | None:
    """The column of a file without a header whose cells hold several ids that look like those of
    the items, such as a letter and a number.
    """
    wanted = _form(con, f"SELECT {identifier(explode.column)} AS part FROM {sample}")
    for name, column in table.columns.items():
        if name == explode.column or column.type != "VARCHAR":
            continue
        cells = f"SELECT string_split(trim({identifier(name)}), ' ') AS parts FROM {table.sample}"
        filled = f"{cells} WHERE trim({identifier(name)}) <> '' LIMIT {FIRST_ROWS}"
        (several,) = con.execute(
            f"SELECT avg(CAST(len(parts) > 1 AS INT)) FROM ({filled})"
        ).fetchall()[0]
        parts = f"SELECT unnest(parts) AS part FROM ({filled})"
        if (several or 0) >= SEVERAL and _form(con, parts) == wanted:
            return PriorItems(column=name)
    return None


def _form(con: DuckDBPyConnection, parts: str) -> str | None:
    """The one form of the values of a query, letters as A and digits as 9; None if there are
    several.
    """
    form = "regexp_replace(regexp_replace(part, '[A-Za-z]+', 'A', 'g'), '[0-9]+', '9', 'g')"
    found = con.execute(f"SELECT DISTINCT {form} FROM ({parts}) WHERE part <> ''").fetchall()
    return str(found[0][0]) if len(found) == 1 else None
