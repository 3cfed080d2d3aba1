"""DuckDB: a connection that spills to disk, Parquet files, and its errors in one sentence."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice, takewhile
from pathlib import Path
from typing import Any

import duckdb
from duckdb import DuckDBPyConnection, DuckDBPyRelation

from dssm_core.columns import ROW
from dssm_core.config import Resources
from dssm_core.data.sql import identifier, literal, whole_lines
from dssm_core.errors import DataError, ServiceError
from dssm_core.runs.files import scratch
from dssm_core.runs.memory import planned
from dssm_core.runs.progress_log import watched

ROW_GROUP_ROWS = 122_880
UNREADABLE = duckdb.Error  # damage makes DuckDB raise errors of nearly every class
MESSAGE_LINES = 4
EXCEPTION = re.compile(r"\b\w+Exception: ")  # classes of the libraries in DuckDB
NOT_UTF_16 = "File is not utf-16 encoded"
DAMAGED_JSON = re.compile(r'(?:Malformed JSON|JSON transform error) in file "(.+?)", ')
UNPARSED = "state machine reached an invalid state"  # of DuckDB's CSV reader


@contextmanager
def connect(near: Path, resources: Resources) -> Iterator[DuckDBPyConnection]:
    """An in-memory DuckDB that keeps the order of rows and spills into a temporary folder beside
    `near` when it has used its part of the memory. How far a long query is, is logged.

    Raises ServiceError when the disk or the memory is full: DuckDB's own error is no OSError.
    """
    with scratch(near.parent) as spill, duckdb.connect() as con:
        con.execute(f"SET memory_limit = '{planned(resources).duckdb}B'")
        con.execute(f"SET temp_directory = {literal(spill)}")
        con.execute("SET preserve_insertion_order = true")
        con.execute("SET enable_progress_bar = true")  # without it there is no query_progress
        con.execute("SET enable_progress_bar_print = false")  # on stdout
        try:
            with watched(con.query_progress, "the current query"):
                yield con
        except (duckdb.IOException, duckdb.OutOfMemoryException) as error:
            if isinstance(error, duckdb.OutOfMemoryException) or "write" in str(error):
                memory = isinstance(error, duckdb.OutOfMemoryException)
                raise ServiceError(
                    f"cannot write near {near} ({duckdb_message(error)}): free disk space"
                    f"{' or raise resources.memory_gib' if memory else ''}, then retry"
                ) from error
            raise


def one_row(con: DuckDBPyConnection, query: str) -> tuple[Any, ...]:
    """The only row of a query's result.

    The result is fetched whole, because DuckDB 2 refuses new work while a result is open.
    """
    (row,) = con.execute(query).fetchall()
    return tuple(row)


def write_parquet(con: DuckDBPyConnection, query: str, file: Path) -> int:
    """Write the rows of a query to a Parquet file (zstd). Returns the number of rows."""
    options = f"FORMAT parquet, COMPRESSION zstd, ROW_GROUP_SIZE {ROW_GROUP_ROWS}"
    (count,) = one_row(con, f"COPY ({query}) TO {literal(str(file))} ({options})")
    return int(count)


def write_table(
    con: DuckDBPyConnection, relation: DuckDBPyRelation, file: Path, order: str | None = None
) -> int:
    """Write a relation to a Parquet file, in the order of column `order` (ties: in the order of the
    relation). Returns the number of rows.
    """
    relation.create_view("source", replace=True)
    query = "SELECT * FROM source"
    if order:
        query = (
            f"SELECT * EXCLUDE {ROW} FROM (SELECT *, row_number() OVER () AS {ROW} FROM source)"
            f" ORDER BY {identifier(order)} NULLS LAST, {ROW}"
        )
    return write_parquet(con, query, file)


def unreadable(error: duckdb.Error) -> DataError:
    """The DataError for a file that DuckDB cannot read to its end (a truncated gzip, a malformed
    line).
    """
    file = re.search(r"^ *file = (.+)$", str(error), re.MULTILINE)
    where = f" in {file[1]!r}" if file else ""
    if UNPARSED in str(error):
        return DataError(
            f"the log cannot be read{where}: all lines of a file must end in the same way (LF or"
            " CRLF), and a quoted value must end at a separator or at the end of its line. Convert"
            " the line ends, for example with dos2unix, or check `quote`"
        )
    if NOT_UTF_16 in str(error):
        return DataError(
            f"the log cannot be read as UTF-16{where}: it has another encoding, or characters"
            " beyond U+FFFF, such as emoji, which are not read from UTF-16. Convert the files to"
            " UTF-8, for example with iconv -f UTF-16 -t UTF-8"
        )
    damaged = DAMAGED_JSON.search(str(error))
    if damaged and (line := _json_line(Path(damaged[1]))):
        return DataError(
            f"the log cannot be read: line {line} of {damaged[1]!r} is no JSON object. Fix or"
            " remove the line, or copy the file again"
        )
    return DataError(
        f"the log cannot be read: {duckdb_message(error)}{where}. Copy the file again, or fix or"
        " remove the line"
    )


def _json_line(file: Path) -> int | None:
    """The number of the first line that is no JSON object, None if there is none. DuckDB's own
    number leaves out empty lines.
    """
    is_object = "CASE WHEN json_valid(line) THEN json_type(line) IN ('OBJECT', 'NULL') END"
    query = f"""
    SELECT min(nth) FROM (SELECT row_number() OVER () AS nth, line FROM {whole_lines([file])})
    WHERE trim(line) <> '' AND {is_object} IS NOT true
    """
    try:
        with duckdb.connect() as con:
            (line,) = one_row(con, query)
    except duckdb.Error:  # such as text that is not UTF-8: DuckDB's message says it
        return None
    return None if line is None else int(line)


def duckdb_message(error: duckdb.Error) -> str:
    """DuckDB's message in one line, without the JSON around it and the SQL advice after it."""
    wrapped = re.search(r'"exception_message":("(?:[^"\\]|\\.)*")', str(error))
    lines = [
        line.strip() for line in (json.loads(wrapped[1]) if wrapped else str(error)).splitlines()
    ]
    facts = takewhile(lambda line: not line.startswith("Possible "), filter(None, lines))
    return EXCEPTION.sub("", " ".join(islice(facts, MESSAGE_LINES)))
