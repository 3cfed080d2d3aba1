"""The first step: the source's log as canonical Parquet tables, in time order."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import duckdb
from duckdb import DuckDBPyConnection, DuckDBPyRelation

from dssm_core import families
from dssm_core.columns import ROW, TIME
from dssm_core.config import Config
from dssm_core.data.comparison import parse_positive
from dssm_core.data.sources.columns import RAW, kept_text, quote, text
from dssm_core.data.sources.delimited import read_error, said
from dssm_core.data.sources.protocol import Source
from dssm_core.errors import DataError, ServiceError
from dssm_core.families import SOURCES
from dssm_core.runs.files import scratch
from dssm_core.runs.layout import table_file
from dssm_core.runs.manifest import Outcome
from dssm_core.runs.run import Run

MEMORY_LIMIT = "1200MB"  # DuckDB spills to disk beyond it


def open_source(config: Config) -> Source:
    """The source that the config chooses, with its settings."""
    source: Source = families.build(SOURCES, config.data.source)
    return source


def source_files(run: Run) -> dict[str, Path]:
    """Each file the run's source reads, by path relative to `data.source.path`."""
    return open_source(run.config).files()


@contextmanager
def connect(near: Path) -> Iterator[DuckDBPyConnection]:
    """An in-memory DuckDB that keeps row order and spills into a folder beside `near`, removed
    afterwards.

    Raises ServiceError when the disk is full: DuckDB's own error is no OSError.
    """
    with scratch(near.parent) as spill, duckdb.connect() as con:
        con.execute(f"SET memory_limit = '{MEMORY_LIMIT}'")
        con.execute(f"SET temp_directory = {text(spill)}")
        con.execute("SET preserve_insertion_order = true")
        try:
            yield con
        except (duckdb.IOException, duckdb.OutOfMemoryException) as error:
            if isinstance(error, duckdb.OutOfMemoryException) or "write" in str(error):
                raise ServiceError(
                    f"cannot write near {near} ({said(error)}): free disk space, then retry"
                ) from error
            raise


def ingest(run: Run, work: Path) -> Outcome:
    """Write interactions.parquet in time order (file order for ties), users.parquet and
    items.parquet if there are any.

    rows: read. Raises DataError when a file is damaged or lacks a mapped column, or when there is
    no row at all.
    """
    try:
        with connect(work) as con:
            read = _ingest(con, run.config, work)
    except (duckdb.InvalidInputException, duckdb.IOException, duckdb.ConversionException) as error:
        raise read_error(error) from error
    if not read:
        raise DataError("the log has no row: check data.source.path and the files in it")
    return Outcome(rows={"read": read})


def _ingest(con: DuckDBPyConnection, config: Config, work: Path) -> int:
    numbers = number_columns(config)
    tables = open_source(config).read(con)
    for name, table in (("users", tables.users), ("items", tables.items)):
        if table is not None:
            write_table(con, typed(table, numbers), work / table_file(name))
    return write_table(
        con, typed(tables.interactions, numbers), work / table_file("interactions"), TIME
    )


def number_columns(config: Config) -> set[str]:
    """The columns that must be numbers: the one that `positive` compares, and the numeric features."""
    columns = config.features.columns
    numeric = {
        feature.column
        for feature in (*columns.user, *columns.item, *columns.context)
        if feature.kind == "numeric"
    }
    return numeric | set(columns.targets()) | compared(config)


def compared(config: Config) -> set[str]:
    """The columns of interactions that a comparison of the config speaks of: data.positive and,
    where there is one, split.relevant.
    """
    relevant = getattr(config.split, "relevant", None)
    return {parse_positive(text).column for text in (config.data.positive, relevant) if text}


def typed(relation: DuckDBPyRelation, numbers: set[str]) -> DuckDBPyRelation:
    """Number columns that came as text as DOUBLE, with `<column>_raw` for text that is none; the
    rest unchanged.
    """
    parts: list[str] = []
    for name, kind in zip(relation.columns, relation.types, strict=True):
        parts += number(name) if name in numbers and str(kind) == "VARCHAR" else [quote(name)]
    return relation.project(", ".join(parts))


def number(name: str) -> list[str]:
    """SQL: a text column as finite DOUBLE, and the text of the cells that are none."""
    parsed = f"TRY_CAST({quote(name)} AS DOUBLE)"
    value = f"CASE WHEN isfinite({parsed}) THEN {parsed} END"
    return [
        f"{value} AS {quote(name)}",
        f"{kept_text(quote(name), 'VARCHAR', value)} AS {quote(name + RAW)}",
    ]


def write_table(
    con: DuckDBPyConnection, relation: DuckDBPyRelation, file: Path, order: str | None = None
) -> int:
    """Write a relation to Parquet, sorted stably by `order`; returns the number of rows."""
    relation.create_view("_source", replace=True)
    query = "SELECT * FROM _source"
    if order:
        query = f"SELECT * EXCLUDE _row FROM (SELECT *, row_number() OVER () AS _row FROM _source) ORDER BY {quote(order)} NULLS LAST, _row"
    return write_parquet(con, query, file)


def write_parquet(con: DuckDBPyConnection, query: str, file: Path) -> int:
    """Write a query's rows to a zstd Parquet file; returns how many there are."""
    (count,) = one_row(
        con,
        f"COPY ({query}) TO {text(str(file))} (FORMAT parquet, COMPRESSION zstd, ROW_GROUP_SIZE 122880)",
    )
    return int(count)


def numbered(file: Path) -> str:
    """SQL: a Parquet file's rows with their number in it, `_row`."""
    rows = f"read_parquet({text(str(file))}, file_row_number = true)"
    return f"SELECT * EXCLUDE file_row_number, file_row_number AS {ROW} FROM {rows}"


def one_row(con: DuckDBPyConnection, query: str) -> tuple[Any, ...]:
    """The only row of a query; fetched whole, as DuckDB 2 refuses new work while a result is open."""
    (row,) = con.execute(query).fetchall()
    return tuple(row)
