"""Which table of a folder is the log, and what its columns mean."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

from duckdb import DuckDBPyConnection

from dssm_core.columns import ITEM, LABEL, TIME, USER
from dssm_core.data.sources.mapped import ROW_UNIT
from dssm_core.errors import DataError, shown
from dssm_core.inspection.cells import with_item_rows
from dssm_core.inspection.files import FileGroup
from dssm_core.inspection.roles import Roles, guess_label, guess_roles, listed
from dssm_core.inspection.tables import Table
from dssm_core.inspection.times import TimeGuess, guess_time

NAMES = (USER, ITEM, TIME, LABEL)


@dataclass(frozen=True)
class Log:
    """The table of interactions, what its columns mean, how its times are written, and the other
    tables of the folder.
    """

    table: Table
    roles: Roles
    time: TimeGuess
    others: Sequence[Table]

    @property
    def mapping(self) -> dict[str, str]:
        """Name → column of the file, of the columns that get another name. A column that has the
        name of another one's role is called other_NAME.
        """
        roles = self.roles
        known = {USER: roles.user, ITEM: roles.item, TIME: roles.time}
        named = {name: column for name, column in known.items() if column is not None}
        if roles.label:
            named[guess_label(self.table.columns[roles.label]).name] = roles.label
        in_the_way = {
            f"other_{name}": column
            for column in self.table.columns
            for name in NAMES
            if column not in named.values() and column.lower().strip("s") == name
        }
        return {name: column for name, column in named.items() if name != column} | in_the_way


def find_log(
    con: DuckDBPyConnection,
    tables: Sequence[Table],
    problems: Mapping[str, str],
    chosen: Mapping[str, str],
    among: Collection[FileGroup],
) -> Log:
    """The first table, of those with most bytes, that has a user, an item and a time in each row;
    if there is none, the first without times, else the first without users.

    problems: of the files that cannot be read, by pattern. chosen: column by canonical name where a
    person has said it. among: the files that may be the log. DataError with the reasons of all
    tables if none is a log.
    """
    patterns = {group.pattern for group in among}
    reasons = [problem for pattern, problem in problems.items() if pattern in patterns]
    own = [with_item_rows(con, table) for table in tables if table.group in among]
    for lacks in (None, TIME, USER):
        for table in own:
            try:
                return _as_log(con, table, tables, chosen, lacks)
            except DataError as error:
                reasons += [str(error)] if lacks is None else []
    raise DataError("\n".join(reasons))


def _as_log(
    con: DuckDBPyConnection,
    table: Table,
    tables: Sequence[Table],
    chosen: Mapping[str, str],
    lacks: str | None,
) -> Log:
    """The table as the log. lacks: USER or TIME, which it may lack."""
    where = shown(table.group.pattern)
    columns = table.columns
    if missing := [name for name in chosen.values() if name not in columns]:
        raise DataError(
            f"{where} has no column {shown(missing[0])}; its columns are {listed(columns)}"
        )
    guesses = {
        name: guess
        for name, column in columns.items()
        if (guess := guess_time(con, table.sample, column))
    }
    if table.explode and table.explode.column in columns:
        chosen = {ITEM: table.explode.column, **chosen}
    roles = guess_roles(columns, guesses, where, chosen, table.header, table.unique, lacks)
    repeated = roles.user or roles.item
    if columns[repeated].is_unique:
        raise DataError(
            f"{where} has no {shown(repeated)} in two rows, so it is no log of interactions: give"
            " a file with a row for each click, or name the column of users with --user COLUMN"
        )
    if roles.time is not None and roles.time not in guesses:
        raise DataError(
            f"{where} has no times that can be read in column {shown(roles.time)}: write them in"
            " seconds, in ms or in ISO form, or name another column with --time"
        )
    time = guesses[roles.time] if roles.time else TimeGuess(ROW_UNIT)
    if not table.header:
        table, roles = _named(con, table, roles)
    return Log(table, roles, time, [other for other in tables if other.group != table.group])


def _named(con: DuckDBPyConnection, table: Table, roles: Roles) -> tuple[Table, Roles]:
    """A table without a header, whose columns get the names of their roles."""
    known = {USER: roles.user, ITEM: roles.item, TIME: roles.time}
    names = {column: name for name, column in known.items() if column is not None}
    if table.history:
        names[table.history.column] = "history"
    label = roles.label and guess_label(table.columns[roles.label]).name
    if roles.label and label:
        names[roles.label] = label
    return table.renamed(con, names), replace(
        roles,
        user=roles.user and USER,
        item=ITEM,
        time=roles.time and TIME,
        label=label,
    )
