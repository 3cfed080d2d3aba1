"""A log in delimited text files (CSV, TSV, `::`), plain or gzip, described by a mapping in YAML."""

from __future__ import annotations

import codecs
import csv
import gzip
from collections.abc import Iterable, Mapping
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Annotated, ClassVar, Literal, Self

from duckdb import DuckDBPyConnection, DuckDBPyRelation
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from dssm_core.columns import INTERACTIONS, INTERNAL, ITEMS, USERS
from dssm_core.data.sources.canonical import check_distinct, to_canonical
from dssm_core.data.sources.files import FileTable, find_files, named_files, table_files
from dssm_core.data.sources.mapped import WITH_IDS
from dssm_core.data.sources.protocol import LogTables
from dssm_core.data.sources.sessions import session_sql
from dssm_core.data.sql import file_literal, identifier, literal
from dssm_core.errors import DataError

TEXT_FORMAT = ("separator", "quote", "encoding")  # that users and items take from interactions


def _mark(most: int, text: str) -> str:
    """The text itself; ValueError when it cannot mark where a value ends."""
    if len(text.encode()) > most or set(text) & set("\0\r\n"):
        raise ValueError(
            f"{text!r} must have at most {most} bytes in UTF-8, and no NUL or end of a line"
        )
    return text


class TextTable(FileTable):
    """One table of a log in text files."""

    separator: Annotated[
        str, Field(min_length=1, max_length=4), AfterValidator(partial(_mark, 4))
    ] = ","
    """What separates the columns of a line."""
    quote: Annotated[str, Field(max_length=1), AfterValidator(partial(_mark, 1))] = '"'
    """The character that quotes a value; empty for files without quoting."""
    names: tuple[str, ...] | None = None
    """Names of the columns, for files without a header line; null reads the header."""
    encoding: Literal["utf-8", "utf-16", "latin-1"] = "utf-8"
    """Encoding of the files; `utf-16` is little-endian."""

    @model_validator(mode="after")
    def _quote_is_no_separator(self) -> Self:
        if self.quote and self.quote in self.separator:
            raise ValueError(
                f"quote {self.quote!r} is in separator {self.separator!r}: choose another quote, or"
                " '' for files without quoting"
            )
        return self


class Delimited(BaseModel):
    """Text files: CSV, TSV and the like."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)
    timed: ClassVar[bool] = True
    ignores: ClassVar[tuple[str, ...]] = ()
    path: str
    """A folder, or the one file of interactions. Files whose name ends in .gz are read as gzip."""
    interactions: TextTable
    """The files of interactions."""
    users: Annotated[TextTable, WITH_IDS] | None = None
    """The files of users. Their separator, quote and encoding are those of the interactions, unless
    they set their own."""
    items: Annotated[TextTable, WITH_IDS] | None = None
    """The files of items, as those of users."""

    @model_validator(mode="after")
    def _tables_are_sound(self) -> Self:
        for table in (self.users, self.items):
            if table:
                self._with_format(table)
        return self

    def _with_format(self, table: TextTable) -> TextTable:
        """A table with the text format of the interactions where it sets none."""
        inherited = {name: getattr(self.interactions, name) for name in TEXT_FORMAT}
        return TextTable.model_validate(inherited | table.model_dump(exclude_unset=True))

    def files(self) -> dict[str, Path]:
        """Every file of every table, by relative name; DataError when a pattern matches no file."""
        tables = (self.interactions, self.users, self.items)
        return find_files(self.path, [table.files for table in tables if table])

    def read(self, con: DuckDBPyConnection) -> LogTables:
        """The tables. All columns are text except the times; files with different headers are
        joined by column name.
        """
        return LogTables.of(
            self._read(con, INTERACTIONS, self.interactions),
            self._read(con, USERS, self._with_format(self.users)) if self.users else None,
            self._read(con, ITEMS, self._with_format(self.items)) if self.items else None,
        )

    def _read(self, con: DuckDBPyConnection, name: str, spec: TextTable) -> DuckDBPyRelation:
        files = table_files(self.path, spec, name == INTERACTIONS)
        return read_text(con, files, name, spec)


def read_text(
    con: DuckDBPyConnection, files: Mapping[str, Path], table: str, spec: TextTable
) -> DuckDBPyRelation:
    """The canonical rows of text files, in file order. table: interactions, users or items. Raises
    DataError naming the file that cannot be used.
    """
    where = named_files(files, table, spec)
    return to_canonical(read_raw_text(con, files, spec), table, spec, where)


def read_raw_text(
    con: DuckDBPyConnection, files: Mapping[str, Path], spec: TextTable
) -> DuckDBPyRelation:
    """The files' own columns as text, rows in file order; files with different headers are joined
    by column name. A column without a name, such as the index that pandas writes, is left out.
    """
    if spec.encoding == "utf-16":
        _check_byte_order(files.values())
    headers = {file: spec.names or read_header(file, spec) for file in files.values()}
    if spec.anonymous:  # each file on its own, so that its rows are numbered
        queries = [
            _query([file], headers[file], spec, f", {session_sql(path)}")
            for path, file in files.items()
        ]
    else:
        queries = [
            _query(list(group), header, spec)
            for header, group in groupby(headers, key=lambda file: headers[file])
        ]
    return con.sql(" UNION ALL BY NAME ".join(queries))


def _check_byte_order(files: Iterable[Path]) -> None:
    """DataError for a file in big-endian UTF-16, of which DuckDB would read no line."""
    for file in files:
        with (gzip.open if file.suffix == ".gz" else open)(file, "rb") as stream:
            start = stream.read(2)
        if start == codecs.BOM_UTF16_BE or start[:1] == b"\0":
            raise DataError(
                f"{str(file)!r} is in big-endian UTF-16: convert it to UTF-8, for example with"
                " iconv -f UTF-16 -t UTF-8"
            )


def read_header(file: Path, spec: TextTable) -> tuple[str, ...]:
    """The column names in a file's first line; DataError when it is empty or cannot be decoded."""
    opener = gzip.open if file.suffix == ".gz" else open
    encoding = "utf-8-sig" if spec.encoding == "utf-8" else spec.encoding
    try:
        with opener(file, "rt", encoding=encoding) as stream:
            line = stream.readline().rstrip("\r\n")
    except (EOFError, gzip.BadGzipFile) as error:
        raise DataError(
            f"{str(file)!r} cannot be read as gzip ({error}): copy the file again, or rename it if"
            " it is not compressed"
        ) from error
    except UnicodeError as error:
        raise DataError(
            f"{str(file)!r} cannot be read ({error}): copy the file again, or check `encoding`"
            f" ({spec.encoding})"
        ) from error
    if not line:
        raise DataError(
            f"the first line of {str(file)!r} is empty: give the file a header line, or set"
            " `names`, the list of its columns"
        )
    if len(spec.separator) > 1 or not spec.quote:
        return tuple(line.split(spec.separator))
    try:
        return tuple(next(csv.reader([line], delimiter=spec.separator, quotechar=spec.quote)))
    except csv.Error as error:
        raise DataError(
            f"the first line of {str(file)!r} is no header ({error}): check `separator` and `quote`"
        ) from error


def _query(files: list[Path], names: tuple[str, ...], spec: TextTable, more: str = "") -> str:
    """SQL: the rows of files that have the same columns. more: SQL of columns beside these."""
    named = [name for name in names if name]
    check_distinct(named, repr(str(files[0])))
    selected = ", ".join(map(identifier, named))
    paths = ", ".join(map(file_literal, files))
    columns = ", ".join(
        f"{literal(name or f'{INTERNAL}nameless_{nth}')}: 'VARCHAR'"
        for nth, name in enumerate(names)
    )
    return (
        f"SELECT {selected}{more} FROM read_csv([{paths}], columns = {{{columns}}},"
        f" header = {spec.names is None}, delim = {literal(spec.separator)},"
        f" quote = {literal(spec.quote)}, escape = {literal(spec.quote)},"
        f" encoding = {literal(spec.encoding)}, auto_detect = false, hive_partitioning = false,"
        " strict_mode = true)"
    )
