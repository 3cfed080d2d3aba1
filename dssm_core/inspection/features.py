"""Which kind of feature a column is, by its type and cardinality."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from duckdb import DuckDBPyConnection

from dssm_core.data.sql import identifier
from dssm_core.inspection.columns import Column, separator_of
from dssm_core.inspection.words import NO_FEATURE, words_of

MOST_CONTEXT = 200  # distinct values of a column of the log that is a context
MOST_VOCABULARY = 50_000  # distinct values in the sample, beyond which ids are hashed
FEW = 50  # distinct numbers below which they are ids
MOSTLY_NUMBERS = 0.9  # share of numbers from which other cells are taken for missing values
REPEATED = 0.5  # share of distinct values below which a column of text repeats itself
WORDS = 3.0  # mean number of words from which text is read as words
MOST_FEATURES = 8  # of a table: more are a person's choice

Feature = dict[str, Any]


def context_features(columns: Mapping[str, Column], taken: Collection[str]) -> list[Feature]:
    """Categorical columns of the log, without ids, times and labels."""
    return [
        {"column": name, "kind": "categorical"}
        for name, column in columns.items()
        if name not in taken and is_context(column)
    ][:MOST_FEATURES]


def is_context(column: Column) -> bool:
    """Whether a column has few values that repeat, as a device or a country has."""
    fractions = column.numbers > 0 and column.whole < column.numbers
    return (
        1 < column.distinct <= MOST_CONTEXT
        and column.distinct < REPEATED * column.rows
        and not fractions
        and not column.is_list
        and not NO_FEATURE & set(words_of(column.name))
    )


def table_features(
    con: DuckDBPyConnection, table: str, columns: Mapping[str, Column], taken: Collection[str]
) -> list[Feature]:
    """The features of a users or items table."""
    features = (
        feature_of(column, _separator(con, table, column), _is_vector(con, table, column))
        for name, column in columns.items()
        if name not in taken and not NO_FEATURE & set(words_of(name))
    )
    return [feature for feature in features if feature is not None][:MOST_FEATURES]


def feature_of(
    column: Column, separator: str | None = None, is_vector: bool = False
) -> Feature | None:
    """The feature that a column is; None if it has one value, or one of its own in each row.

    separator: of several values in a cell. is_vector: whether its lists are vectors.
    """
    feature: Feature = {"column": column.name}
    if column.distinct < 2 or column.times == 1.0 or column.is_timestamp:
        return None
    if column.is_list:
        return feature | {"kind": "vector" if is_vector else "multi"}
    if separator is not None:
        written = {} if separator == "|" else {"separator": separator}
        return feature | {"kind": "multi"} | written
    if has_unreadable(column):
        return feature | {"kind": "numeric"}
    fractions = column.is_number and column.whole < 1
    if fractions or (column.is_number and column.distinct > FEW):
        skewed = column.low is not None and column.low >= 0 and (column.high or 0) > 1_000
        return feature | {"kind": "numeric"} | ({"normaliser": "log"} if skewed else {})
    if column.distinct < max(REPEATED * column.filled, 3):
        hashed = {"buckets": MOST_VOCABULARY} if column.distinct > MOST_VOCABULARY else {}
        return feature | {"kind": "categorical"} | hashed
    return feature | {"kind": "text"} if column.words >= WORDS else None


def has_unreadable(column: Column) -> bool:
    """Whether a column of many different numbers has a few cells that are none, such as `n/a`."""
    return MOSTLY_NUMBERS <= column.numbers < 1 and column.distinct > FEW and not column.padded


def _is_vector(con: DuckDBPyConnection, table: str, column: Column) -> bool:
    """Whether a column has lists of one length, of numbers with fractions. Whole numbers may be
    ids.
    """
    if not column.is_list or not column.type.startswith(("FLOAT", "DOUBLE", "DECIMAL")):
        return False
    if column.type.count("[") > 1:
        return False
    name = identifier(column.name)
    lengths = con.execute(
        f"SELECT DISTINCT len({name}) FROM {table} WHERE {name} IS NOT NULL LIMIT 2"
    ).fetchall()
    return len(lengths) == 1 and lengths[0][0] > 1


def _separator(con: DuckDBPyConnection, table: str, column: Column) -> str | None:
    """The separator of a column of text with many different cells."""
    if column.is_list or column.numbers > 0.5 or column.is_timestamp or column.distinct < 3:
        return None
    return separator_of(con, table, column.name)
