"""Which table of a folder is the log, and what its columns mean."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

from duckdb import DuckDBPyConnection

from dssm_core.columns import ITEM, LABEL, TIME, USER
from dssm_core.errors import DataError, shown
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
        named = {USER: roles.user, ITEM: roles.item, TIME: roles.time}
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
    """The first table, of those with most bytes, that has a user, an item and a time in each row.

    problems: of the files that cannot be read, by pattern. chosen: column by canonical name where a
    person has said it. among: the files that may be the log. DataError with the reasons of all
    tables if none is a log.
    """
    patterns = {group.pattern for group in among}
    reasons = [problem for pattern, problem in problems.items() if pattern in patterns]
    for table in tables:
        if table.group not in among:
            continue
        try:
            return _as_log(con, table, tables, chosen)
        except DataError as error:
            reasons.append(str(error))
    raise DataError("\n".join(reasons))


def _as_log(
    con: DuckDBPyConnection, table: Table, tables: Sequence[Table], chosen: Mapping[str, str]
) -> Log:
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
    roles = guess_roles(columns, guesses, where, chosen, table.header)
    if columns[roles.user].is_unique:
        raise DataError(
            f"{where} has no {shown(roles.user)} in two rows, so it is no log of interactions: give"
            " a file with a row for each click, or name the column of users with --user COLUMN"
        )
    if roles.time not in guesses:
        raise DataError(
            f"{where} has no times that can be read in column {shown(roles.time)}: write them in"
            " seconds, in ms or in ISO form, or name another column with --time"
        )
    time = guesses[roles.time]
    if not table.header:
        table, roles = _named(con, table, roles)
    return Log(table, roles, time, [other for other in tables if other.sample != table.sample])


def _named(con: DuckDBPyConnection, table: Table, roles: Roles) -> tuple[Table, Roles]:
    """A table without a header, whose columns get the names of their roles."""
    names = {roles.user: USER, roles.item: ITEM, roles.time: TIME}
    label = roles.label and guess_label(table.columns[roles.label]).name
    if roles.label and label:
        names[roles.label] = label
    return table.renamed(con, names), replace(roles, user=USER, item=ITEM, time=TIME, label=label)
