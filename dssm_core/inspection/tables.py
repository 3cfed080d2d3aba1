"""The tables of a folder, a sample of rows of each, and which of them are users and items."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import duckdb
from duckdb import DuckDBPyConnection

from dssm_core.columns import CREATED, INTERNAL, ITEM, USER
from dssm_core.data.database import UNREADABLE, unreadable
from dssm_core.data.sources.delimited import TEXT_FORMAT, TextTable, read_raw_text
from dssm_core.data.sources.explode import Explode
from dssm_core.data.sources.files import FileTable
from dssm_core.data.sources.json_lines import read_objects
from dssm_core.data.sources.prior import PriorItems
from dssm_core.data.sql import identifier, parquet
from dssm_core.errors import DataError, shown
from dssm_core.inspection import words
from dssm_core.inspection.columns import Column, describe, text_of
from dssm_core.inspection.files import FileGroup
from dssm_core.inspection.formats import TextFormat, tell_format
from dssm_core.inspection.roles import best, id_score
from dssm_core.inspection.times import TimeGuess, guess_time
from dssm_core.inspection.words import words_of

MOST_FILES = 8  # of a group, evenly spaced, from which the sample is taken
MOST_ROWS = 500_000  # of the sample of a table
COVERED = 0.999  # share of the log's ids that a table of users or items has if it has all
MOSTLY = 0.5  # share from which a table that is called so is taken in spite of gaps
SIDE_WORDS = {USER: words.USER, ITEM: words.ITEM}


@dataclass(frozen=True)
class Table:
    """A table of a log: its files, how they are written (None: Parquet or JSON lines), the name of
    its sample in DuckDB, and the sample's columns.

    explode, history: how cells with several items are read. unique: the columns that had a value of
    its own in each row before `explode`.
    """

    group: FileGroup
    format: TextFormat | None
    sample: str
    columns: Mapping[str, Column]
    explode: Explode | None = None
    history: PriorItems | None = None
    unique: frozenset[str] = frozenset()

    @property
    def header(self) -> bool:
        """Whether the files name their columns."""
        return self.format is None or self.format.header

    @property
    def doubts(self) -> tuple[str, ...]:
        """What may be wrong with how the files are written."""
        return () if self.format is None else self.format.doubts

    def renamed(self, con: DuckDBPyConnection, names: Mapping[str, str]) -> Table:
        """The same table with other names of columns."""
        names = {old: new for old, new in names.items() if old != new}
        for old, new in names.items():
            con.execute(
                f"ALTER TABLE {self.sample} RENAME COLUMN {identifier(old)} TO {identifier(new)}"
            )
        columns = {
            names.get(name, name): replace(column, name=names.get(name, name))
            for name, column in self.columns.items()
        }
        assert self.format is not None
        written = tuple(names.get(name, name) for name in self.format.names)
        renamed = {
            part: {"column": names.get(part.column, part.column)}
            for part in (self.explode, self.history)
            if part is not None
        }
        return replace(
            self,
            columns=columns,
            format=replace(self.format, names=written),
            explode=self.explode and self.explode.model_copy(update=renamed[self.explode]),
            history=self.history and self.history.model_copy(update=renamed[self.history]),
        )

    def settings(self, log: TextFormat | None = None) -> dict[str, object]:
        """The settings of the table's files in a config. A table of users or items takes what it
        does not set from the format of the log.
        """
        files: dict[str, object] = {"files": self.group.pattern}
        for name, part in (("explode", self.explode), ("history", self.history)):
            if part is not None:
                files[name] = part.model_dump(exclude_defaults=True)
        if self.format is None:
            return files
        own = self.format.table.model_dump(mode="json")
        base = (log.table if log else TextTable(files="*")).model_dump(mode="json")
        written = {name: own[name] for name in TEXT_FORMAT if own[name] != base[name]}
        names = {} if self.format.header else {"names": own["names"]}
        return files | written | names


@dataclass(frozen=True)
class SideTable:
    """A table of users or items: the column of its ids, and that of creation times with their
    format. covered: the share of the log's ids that it has.
    """

    table: Table
    key: str
    created: str | None = None
    time: TimeGuess | None = None
    covered: float = 1.0


def open_tables(
    con: DuckDBPyConnection, groups: Sequence[FileGroup]
) -> tuple[list[Table], dict[str, str]]:
    """The tables that can be read, and why the others cannot be, by pattern."""
    tables: list[Table] = []
    problems: dict[str, str] = {}
    for number, group in enumerate(groups):
        try:
            tables.append(_open(con, group, f"{INTERNAL}sample_{number}"))
        except DataError as error:
            problems[group.pattern] = str(error)
    return tables, problems


def _open(con: DuckDBPyConnection, group: FileGroup, sample: str) -> Table:
    """Take a sample of a table's rows from some of its files. DataError if it cannot be read."""
    files = group.some(MOST_FILES)
    filled = [file for file in files if file.stat().st_size] or files
    form = tell_format(filled[0]) if group.kind == "delimited" else None
    each = MOST_ROWS // len(files)
    try:
        for number, file in enumerate(files):
            if form is not None:
                rows = read_raw_text(con, {file.name: file}, form.table)
            elif group.kind == "json_lines":
                rows = read_objects(con, {file.name: file}, shown(str(file)), FileTable(files="*"))
            else:
                rows = con.sql(f"SELECT * FROM {parquet(file)}")
            query = f"({rows.sql_query()}) LIMIT {each}"
            if number:
                con.execute(f"INSERT INTO {sample} BY NAME FROM {query}")
            else:
                con.execute(f"CREATE OR REPLACE TABLE {sample} AS FROM {query}")
        columns = describe(con, sample)
    except UNREADABLE as error:
        raise _differs(files, error) from error
    return Table(group, form, sample, columns)


def _differs(files: Sequence[object], error: duckdb.Error) -> DataError:
    """Files of one group may differ in columns, which a sample of them does not allow."""
    if isinstance(error, duckdb.BinderException):
        return DataError(
            f"{shown(str(files[0]))} and the files of like names have different columns: give one"
            " of them, or a folder with one table"
        )
    return unreadable(error)


def find_side(
    con: DuckDBPyConnection, key: str, log: Table, log_key: str, others: Sequence[Table]
) -> tuple[SideTable | None, list[str]]:
    """The table of users or items among others, and a sentence for each that nearly is one.

    key: user_id or item_id; log_key: its column in the log. A table is one if its ids are unique
    and hold those of the log. Where several are, names decide.
    """
    found: list[tuple[tuple[float, ...], SideTable]] = []
    problems: list[str] = []
    for table in others:
        column = _key_of(table, key, log_key)
        if column is None:
            continue
        covered, used = _joined(con, log, log_key, table, column)
        score = _name_score(table, column, key)
        if covered >= COVERED or (score > 0 and covered >= MOSTLY):
            found.append(((score, used), SideTable(table, column, covered=covered)))
        elif score > 0 and covered > 0:
            problems.append(
                f"{shown(table.group.pattern)} has only {covered:.1%} of the ids of"
                f" {shown(log_key)}, so it is not read"
            )
    if not found:
        return None, problems
    side = max(found, key=lambda pair: pair[0])[1]
    if not side.table.header:
        side = replace(side, table=side.table.renamed(con, {side.key: key}), key=key)
    return (_with_creation(con, side) if key == ITEM else side), problems


def _key_of(table: Table, key: str, log_key: str) -> str | None:
    """The column of unique ids: the one of the log's name, else the one that is called so, else the
    first.
    """
    unique = {name: column for name, column in table.columns.items() if column.is_unique}
    if log_key in unique:
        return log_key
    named = best(unique, SIDE_WORDS[key])
    other = best(unique, SIDE_WORDS[USER if key == ITEM else ITEM])
    first = next(iter(table.columns))
    return named or (first if first in unique and first != other else None)


def _name_score(table: Table, column: str, key: str) -> float:
    """How much the names of a table and its key say that it is about users, or items."""
    parts = {word.rstrip("s") for word in words_of(table.group.pattern)}
    other = USER if key == ITEM else ITEM
    by_file = bool(parts & SIDE_WORDS[key]) - bool(parts & SIDE_WORDS[other])
    return by_file + id_score(column, SIDE_WORDS[key]) - id_score(column, SIDE_WORDS[other])


def _joined(
    con: DuckDBPyConnection, log: Table, log_key: str, table: Table, column: str
) -> tuple[float, float]:
    """The share of the log's ids that a table has, and of the table's ids that the log has."""
    ids = f"SELECT DISTINCT {text_of(log_key)} AS id FROM {log.sample}"
    own = f"SELECT DISTINCT {text_of(column)} AS id FROM {table.sample}"
    query = f"""
    WITH a AS ({ids}), b AS ({own})
    SELECT count(*) / greatest((SELECT count(id) FROM a), 1),
        count(*) / greatest((SELECT count(id) FROM b), 1) FROM a JOIN b USING (id)
    """
    covered, used = con.execute(query).fetchall()[0]
    return covered, used


def _with_creation(con: DuckDBPyConnection, side: SideTable) -> SideTable:
    """The items table with its column of creation times, if it has one."""
    for name, column in side.table.columns.items():
        named = name == CREATED or set(words_of(name)) & words.CREATED
        if named and (time := guess_time(con, side.table.sample, column)):
            return replace(side, created=name, time=time)
    return side
