"""A log in delimited text files (CSV, TSV, `::`), plain or gzip, described by a mapping in YAML."""

from __future__ import annotations

import csv
import gzip
import json
import re
from collections.abc import Iterable, Mapping
from itertools import groupby, islice, takewhile
from pathlib import Path
from typing import Annotated, Literal

import duckdb
from duckdb import DuckDBPyConnection, DuckDBPyRelation
from pydantic import BaseModel, ConfigDict, Field

from dssm_core.columns import INTERACTIONS, ITEMS, USERS
from dssm_core.data.sources.columns import Table, canonical, find_files, quote, text
from dssm_core.data.sources.protocol import Tables
from dssm_core.errors import DataError

MAX_LINE_BYTES = 32_000_000  # of `whole_lines`: a longer line is an error, it is never cut


class TextTable(Table):
    """A table in text files. `names`: the columns of files without a header line; `quote` may be
    empty.
    """

    separator: Annotated[str, Field(min_length=1, max_length=4)] = ","
    quote: Annotated[str, Field(max_length=1)] = '"'
    names: tuple[str, ...] | None = None
    encoding: Literal["utf-8", "utf-16", "latin-1"] = "utf-8"


class Delimited(BaseModel):
    """Tables in delimited text. path: a folder, or the one interactions file. A .gz file is read as
    gzip.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    path: str
    interactions: TextTable
    users: TextTable | None = None
    items: TextTable | None = None

    def files(self) -> dict[str, Path]:
        """Every file of every table, by relative name; DataError when a pattern matches nothing."""
        return find_files(
            self.path,
            [table.files for table in (self.interactions, self.users, self.items) if table],
        )

    def read(self, con: DuckDBPyConnection) -> Tables:
        """The tables, all columns as text but the canonical ones; files with different headers are
        joined by name.
        """
        relations: dict[str, DuckDBPyRelation | None] = {
            name: read_text(con, files_of(self.path, table, name), name, table) if table else None
            for name, table in (
                (INTERACTIONS, self.interactions),
                (USERS, self.users),
                (ITEMS, self.items),
            )
        }
        interactions = relations[INTERACTIONS]
        assert interactions is not None
        return Tables(interactions, relations[USERS], relations[ITEMS])


def files_of(path: str, table: TextTable, name: str) -> dict[str, Path]:
    """A table's files; where `path` is the interactions file itself, the other tables are looked
    for beside it.
    """
    base = Path(path).expanduser()
    beside = base.is_file() and name != INTERACTIONS
    return find_files(str(base.parent) if beside else path, [table.files])


def read_text(
    con: DuckDBPyConnection, files: Mapping[str, Path], table: str, spec: TextTable
) -> DuckDBPyRelation:
    """One canonical relation from text files, rows in file order. Raises DataError naming the file
    that is unfit.
    """
    where = (
        f"{next(iter(files.values())).name!r}"
        if len(files) == 1
        else f"{table} ({len(files)} files like {spec.files!r})"
    )
    return canonical(con, raw_text(con, files, spec), table, spec, where)


def raw_text(
    con: DuckDBPyConnection, files: Mapping[str, Path], spec: TextTable
) -> DuckDBPyRelation:
    """The files' own columns as text, rows in file order; files with different headers are joined
    by name.
    """
    headers = {file: spec.names or read_header(file, spec) for file in files.values()}
    queries = [
        _query(list(group), header, spec)
        for header, group in groupby(headers, key=lambda file: headers[file])
    ]
    return con.sql(" UNION ALL BY NAME ".join(queries))


def whole_lines(files: Iterable[Path]) -> str:
    """SQL: a table of one text column `line`, in file order (NULL where empty); a separator that no
    text holds keeps it whole.
    """
    paths = ", ".join(text(str(file)) for file in files)
    return (
        rf"read_csv([{paths}], columns = {{line: 'VARCHAR'}}, header = false, delim = E'\x01', quote = '', escape = '',"
        f" auto_detect = false, strict_mode = true, max_line_size = {MAX_LINE_BYTES})"
    )


def read_header(file: Path, spec: TextTable) -> tuple[str, ...]:
    """The column names in a file's first line; DataError when it is empty or not readable as text."""
    opener = gzip.open if file.suffix == ".gz" else open
    try:
        with opener(
            file, "rt", encoding="utf-8-sig" if spec.encoding == "utf-8" else spec.encoding
        ) as stream:
            line = stream.readline().rstrip("\r\n")
    except (EOFError, gzip.BadGzipFile, UnicodeError) as error:
        raise DataError(
            f"{str(file)!r} cannot be read ({error}): copy it again, or check `encoding`"
        ) from error
    if not line:
        raise DataError(
            f"{str(file)!r} is empty: it needs a header line, or `names` in the config and rows"
        )
    if len(spec.separator) > 1 or not spec.quote:
        return tuple(line.split(spec.separator))
    return tuple(next(csv.reader([line], delimiter=spec.separator, quotechar=spec.quote)))


def _query(files: list[Path], names: tuple[str, ...], spec: TextTable) -> str:
    if len(set(names)) < len(names):
        raise DataError(
            f"{str(files[0])!r} names a column twice in {list(names)}: give each column one name"
        )
    columns = ", ".join(f"{text(name)}: 'VARCHAR'" for name in names)
    return (
        f"SELECT {', '.join(quote(name) for name in names)} FROM read_csv([{', '.join(text(str(file)) for file in files)}], "
        f"columns = {{{columns}}}, header = {spec.names is None}, delim = {text(spec.separator)}, "
        f"quote = {text(spec.quote)}, escape = {text(spec.quote)}, encoding = {text(spec.encoding)}, "
        "auto_detect = false, strict_mode = true)"
    )


def read_error(error: duckdb.Error) -> DataError:
    """A sentence from what DuckDB says of a file it could not read to the end (a cut gzip, a
    malformed line).
    """
    file = re.search(r"^ *file = (.+)$", str(error), re.MULTILINE)
    where = f" in {file[1]!r}" if file else ""
    return DataError(
        f"the log cannot be read: {said(error)}{where}. Copy the file again, or mend or remove the line"
    )


def said(error: duckdb.Error) -> str:
    """What DuckDB says went wrong, in a line: without the JSON that may wrap it and the advice on
    SQL that follows it.
    """
    wrapped = re.search(r'"exception_message":("(?:[^"\\]|\\.)*")', str(error))
    lines = [
        line.strip() for line in (json.loads(wrapped[1]) if wrapped else str(error)).splitlines()
    ]
    facts = takewhile(lambda line: not line.startswith("Possible "), filter(None, lines))
    return " ".join(islice(facts, 4))
