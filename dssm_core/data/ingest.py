"""The step `ingest_data`: write the source's log as canonical Parquet tables, in time order."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pyarrow.parquet as pq
from duckdb import DuckDBPyConnection, DuckDBPyRelation

from dssm_core import families
from dssm_core.columns import HISTORIES, INTERACTIONS, ITEMS, TIME, USERS
from dssm_core.config import Config
from dssm_core.config.log_columns import number_columns
from dssm_core.data.database import UNREADABLE, connect, unreadable, write_table
from dssm_core.data.histories import write_histories
from dssm_core.data.sources.canonical import RAW, unparsed_text
from dssm_core.data.sources.protocol import LogTables, Source, Span, TableSource
from dssm_core.data.sql import identifier
from dssm_core.data.vectors import vector_files, with_vectors
from dssm_core.errors import DataError
from dssm_core.families import SOURCES
from dssm_core.runs.layout import table_file
from dssm_core.runs.manifest import Outcome
from dssm_core.runs.run import Run


@dataclass(frozen=True)
class IngestedTables:
    """The Parquet tables that `ingest_data` wrote into a folder.

    types: Arrow type of each column, by table and column; a table that the log does not have is
    left out.
    """

    folder: Path
    types: dict[str, dict[str, str]]

    def __contains__(self, table: str) -> bool:
        return table in self.types

    def __iter__(self) -> Iterator[str]:
        return iter(self.types)

    def columns(self, table: str) -> list[str]:
        """The column names of a table."""
        return list(self.types[table])

    def file(self, table: str) -> Path:
        """The file of a table."""
        return self.folder / table_file(table)


def read_ingested(folder: Path) -> IngestedTables:
    """The tables in the folder of `ingest_data`, with their columns."""
    files = {table: folder / table_file(table) for table in (INTERACTIONS, USERS, ITEMS)}
    schemas = {table: pq.read_schema(file) for table, file in files.items() if file.is_file()}
    types = {
        table: {column.name: str(column.type) for column in schema}
        for table, schema in schemas.items()
    }
    return IngestedTables(folder, types)


def open_source(config: Config) -> Source:
    """The source that the config chooses, with its settings."""
    source: Source = families.build(SOURCES, config.data.source)
    return source


def source_content(run: Run) -> dict[str, Path | str]:
    """Each file that the run's source reads, by path relative to `data.source.path`, or the content
    of each table; and each file of vectors, by its path in the config.
    """
    vectors = vector_files(run.config.features.columns)
    return content_of(open_source(run.config), window_span(run.config)) | vectors


def content_of(source: Source, span: Span | None) -> dict[str, Path | str]:
    """The files of a source, or the content of its tables (see TableSource), by name."""
    tables = source.content(span) if isinstance(source, TableSource) else {}
    return {**source.files(), **tables}


def read_source(con: DuckDBPyConnection, source: Source, span: Span | None) -> LogTables:
    """The tables of a source. One whose tables are no files leaves out interactions outside the
    span.
    """
    return source.read_span(con, span) if isinstance(source, TableSource) else source.read(con)


def window_span(config: Config) -> Span | None:
    """The times that the split uses; None if it uses all rows."""
    window = config.split.window(config.data.zone)
    return Span(window.start_ms, window.end_ms) if window else None


def ingest(run: Run, work: Path) -> Outcome:
    """Write interactions.parquet in time order (file order for ties), and users.parquet,
    items.parquet and histories.parquet if the log has these tables.

    Returns rows: read; info: the versions of the tables that were read, if they have versions.
    Raises DataError when a file is damaged or lacks a mapped column, or when the log is empty.
    """
    try:
        with connect(work, run.config.resources) as con:
            outcome = _ingest(con, run.config, work)
    except UNREADABLE as error:
        raise unreadable(error) from error
    if not outcome.rows["read"]:
        raise DataError(f"the log has no row: {_where_rows_may_be(open_source(run.config))}")
    return outcome


def _where_rows_may_be(source: Source) -> str:
    if isinstance(source, TableSource):
        return "check the tables of data.source, and that split has the days of the log"
    return "check that the files below data.source.path have lines after the header"


def _ingest(con: DuckDBPyConnection, config: Config, work: Path) -> Outcome:
    numbers = number_columns(config)
    span = window_span(config)
    tables = read_source(con, open_source(config), span)
    log = work / table_file(INTERACTIONS)
    read = write_table(con, parse_numbers(tables.interactions, numbers), log, TIME)
    if tables.histories is not None:
        inside = span.sql if span else "true"
        write_histories(con, tables.histories, work / table_file(HISTORIES), inside)
    sides = {USERS: tables.users, ITEMS: tables.items}
    write_sides(con, config, {name: rows for name, rows in sides.items() if rows is not None}, log)
    info = {"versions": dict(tables.versions)} if tables.versions else {}
    return Outcome(rows={"read": read}, info=info)


def write_sides(
    con: DuckDBPyConnection, config: Config, tables: Mapping[str, DuckDBPyRelation], log: Path
) -> None:
    """Write users.parquet and items.parquet beside `log`, the interactions, with their numbers and
    vectors. tables: those that the source has.
    """
    numbers = number_columns(config)
    for name in (USERS, ITEMS):
        table = tables.get(name)
        parsed = None if table is None else parse_numbers(table, numbers)
        rows = with_vectors(con, config, name, parsed, log)
        if rows is not None:
            write_table(con, rows, log.with_name(table_file(name)))


def parse_numbers(relation: DuckDBPyRelation, numbers: set[str]) -> DuckDBPyRelation:
    """The relation with the columns in `numbers` as numbers: text as DOUBLE, each with a column
    `RAW<name>` for text that is no number, decimals as DOUBLE, booleans as 0 and 1. Other columns
    are unchanged.
    """
    parts: list[str] = []
    for name, kind in zip(relation.columns, relation.types, strict=True):
        parts += _number_parts(name, str(kind)) if name in numbers else [identifier(name)]
    return relation.project(", ".join(parts))


def _number_parts(name: str, kind: str) -> list[str]:
    """SQL of a column of numbers."""
    if kind == "VARCHAR":
        return number_sql(name)
    column = identifier(name)
    for start, number in (("BOOLEAN", "TINYINT"), ("DECIMAL", "DOUBLE")):
        if kind.startswith(start) and not kind.endswith("]"):
            return [f"CAST({column} AS {number}) AS {column}"]
    return [column]


def number_sql(name: str) -> list[str]:
    """SQL: a text column as finite DOUBLE, and the text of cells that are no finite number."""
    parsed = f"TRY_CAST({identifier(name)} AS DOUBLE)"
    value = f"CASE WHEN isfinite({parsed}) THEN {parsed} END"
    return [
        f"{value} AS {identifier(name)}",
        f"{unparsed_text(identifier(name), value)} AS {identifier(RAW + name)}",
    ]
