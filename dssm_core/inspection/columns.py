"""What the values of a column are like: one query over a sample of rows."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from duckdb import DuckDBPyConnection

from dssm_core.data.sql import identifier, literal

MOST_VALUES = 30  # a column with more distinct values shows none of them
SEPARATORS = ("|", ";", ",", " ")


@dataclass(frozen=True)
class Column:
    """A column of a sample. Shares are of its filled cells.

    type: that of DuckDB. rows, filled, distinct: numbers of rows, of cells with a value and of
    distinct values. numbers, whole, padded, times: shares of cells that are a number, a whole
    number, a number that begins with 0, a time in ISO form. low, high: of the numbers. zoned:
    share with a UTC offset. words: mean number of words. values: all distinct values as text, most
    frequent first; empty if there are more than MOST_VALUES.
    """

    name: str
    type: str = "VARCHAR"
    rows: int = 0
    filled: int = 0
    distinct: int = 0
    numbers: float = 0.0
    whole: float = 0.0
    padded: float = 0.0
    times: float = 0.0
    zoned: float = 0.0
    low: float | None = None
    high: float | None = None
    words: float = 0.0
    values: tuple[str, ...] = ()

    @property
    def is_list(self) -> bool:
        """Whether a cell holds a list, as Parquet can."""
        return self.type.endswith("]")

    @property
    def is_timestamp(self) -> bool:
        """Whether the column has a type of times."""
        return self.type.startswith("TIMESTAMP") or self.type == "DATE"

    @property
    def is_number(self) -> bool:
        """Whether all values are numbers that are not ids with leading zeros."""
        return self.numbers == 1.0 and not self.padded

    @property
    def is_whole(self) -> bool:
        """Whether all values are whole numbers."""
        return self.is_number and self.whole == 1.0

    @property
    def is_unique(self) -> bool:
        """Whether each row has a value of its own."""
        return self.distinct == self.rows > 0


def describe(con: DuckDBPyConnection, table: str) -> dict[str, Column]:
    """The columns of a table by name, in its order."""
    relation = con.table(table)
    types = dict(zip(relation.columns, map(str, relation.types), strict=True))
    (rows,) = con.execute(f"SELECT count(*) FROM {table}").fetchall()[0]
    return {name: _describe(con, table, name, kind, rows) for name, kind in types.items()}


def text_of(name: str) -> str:
    """SQL: the trimmed text of a cell, NULL if it is empty."""
    return f"nullif(trim(CAST({identifier(name)} AS VARCHAR)), '')"


def _describe(con: DuckDBPyConnection, table: str, name: str, kind: str, rows: int) -> Column:
    number = "TRY_CAST(v AS DOUBLE)"
    finite = f"CASE WHEN isfinite({number}) THEN {number} END"
    time = "v[5] = '-' AND TRY_CAST(v AS TIMESTAMP) IS NOT NULL"
    query = f"""
    SELECT count(v), count(DISTINCT v), avg(CAST({finite} IS NOT NULL AS INT)),
        avg(CAST(regexp_full_match(v, '[+-]?[0-9]+(\\.0+)?') AS INT)),
        avg(CAST(regexp_full_match(v, '0[0-9]+') AS INT)), avg(CAST({time} AS INT)),
        avg(CAST(regexp_matches(v, ':.*(Z|[+-][0-9]{{2}}(:?[0-9]{{2}})?)$') AS INT)),
        min({finite}), max({finite}), avg(len(string_split(v, ' ')))
    FROM (SELECT {text_of(name)} AS v FROM {table}) WHERE v IS NOT NULL
    """
    filled, distinct, numbers, whole, padded, times, zoned, low, high, words = con.execute(
        query
    ).fetchall()[0]
    values = _values(con, table, name) if distinct <= MOST_VALUES else ()
    return Column(
        name,
        kind,
        rows,
        filled,
        distinct,
        numbers=numbers or 0.0,
        whole=whole or 0.0,
        padded=padded or 0.0,
        times=times or 0.0,
        zoned=zoned or 0.0,
        low=low,
        high=high,
        words=words or 0.0,
        values=values,
    )


def _values(con: DuckDBPyConnection, table: str, name: str) -> tuple[str, ...]:
    query = f"""
    SELECT v FROM (SELECT {text_of(name)} AS v FROM {table}) WHERE v IS NOT NULL
    GROUP BY v ORDER BY count(*) DESC, v
    """
    return tuple(value for (value,) in con.execute(query).fetchall())


def separator_of(
    con: DuckDBPyConnection, table: str, name: str, separators: Iterable[str] = SEPARATORS
) -> str | None:
    """The separator of several values in one cell; None if cells seem to hold one value.

    The parts of at least a fifth of the cells must be fewer different ones than the cells are.
    """
    for separator in separators:
        query = f"""
        WITH cells AS (
            SELECT string_split({text_of(name)}, {literal(separator)}) AS parts FROM {table}
            WHERE {text_of(name)} IS NOT NULL
        )
        SELECT (SELECT avg(CAST(len(parts) > 1 AS INT)) FROM cells),
            (SELECT count(DISTINCT trim(part)) FROM (SELECT unnest(parts) AS part FROM cells)),
            (SELECT count(DISTINCT parts) FROM cells), (SELECT max(len(p)) FROM (
                SELECT unnest(parts) AS p FROM cells))
        """
        several, parts, cells, longest = con.execute(query).fetchall()[0]
        is_prose = separator in ", " and (longest or 0) > 30
        if (several or 0) >= 0.2 and parts < cells and not is_prose:
            return separator
    return None
