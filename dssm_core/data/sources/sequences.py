"""Users' sequences in text files: a line a user, `user item item item …` in time order, as many
papers share their data.

There are no times, so an interaction's timestamp is its place: 0 for a user's first item, 1 for the
next (they read as milliseconds after 1970-01-01). It orders one user's events and says nothing of
the order of two users' events: split by a protocol that needs no days (`leave_one_out`, `last_n`,
`fixed`, `holdout`), with item activity switched off.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, ClassVar, Self

from duckdb import DuckDBPyConnection
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from dssm_core.columns import ITEM, ITEMS, PART, TIME, USER, USERS
from dssm_core.data.sources.columns import find_files, id_text, inside, text
from dssm_core.data.sources.delimited import TextTable, files_of, read_text, whole_lines
from dssm_core.data.sources.protocol import Tables
from dssm_core.errors import DataError

TRAIN, TEST = "train", "test"

Pattern = Annotated[str, AfterValidator(inside)]


class Parts(BaseModel):
    """The two globs of a published split: the lines that train, and those that test."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    train: Pattern
    test: Pattern


class Sequences(BaseModel):
    """Either `lines` (a glob below `path`), or `parts`: then a column `part` says 'train' or 'test'
    of each interaction.

    path: a folder, or the one file of lines. Words are separated by blanks or tabs. A user's second
    line goes on where the first ended; a line with nothing but a user holds no interaction; empty
    lines are passed over. With `parts` every place in test comes after every place in train. users,
    items: optional tables as in `delimited`.
    shuffle: a seed, where the order of a line says nothing (many published lists are sorted by id):
    places are then in the order of a hash of seed, user and item, so that a user's last item is any
    of them.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    timed: ClassVar[bool] = False
    path: str
    lines: Pattern | None = None
    parts: Parts | None = None
    users: TextTable | None = None
    items: TextTable | None = None
    shuffle: Annotated[int, Field(ge=0)] | None = None

    @model_validator(mode="after")
    def _one_of_two(self) -> Self:
        if (self.lines is None) == (self.parts is None):
            raise ValueError(
                "give either `lines`, a glob such as sequences.txt*, or `parts` with the globs `train` and `test`"
            )
        return self

    def files(self) -> dict[str, Path]:
        """Every file of lines and tables, by relative name; DataError when a pattern matches
        nothing.
        """
        tables = [table.files for table in (self.users, self.items) if table]
        return find_files(self.path, [*self._patterns.values(), *tables])

    def read(self, con: DuckDBPyConnection) -> Tables:
        """interactions: user_id, item_id, timestamp (the place), and `part` where there are parts;
        lines in file order.
        """
        users, items = (
            read_text(con, files_of(self.path, table, name), name, table) if table else None
            for name, table in ((USERS, self.users), (ITEMS, self.items))
        )
        columns = [USER, ITEM, TIME, *([PART] if self.parts else [])]
        return Tables(
            con.sql(_events(self._files_by_part(), self.shuffle)).project(", ".join(columns)),
            users,
            items,
        )

    @property
    def _patterns(self) -> dict[str, str]:
        return (
            {TRAIN: self.parts.train, TEST: self.parts.test}
            if self.parts
            else {TRAIN: str(self.lines)}
        )

    def _files_by_part(self) -> dict[str, list[Path]]:
        """The files of each part; DataError when one is in both."""
        base = Path(self.path).expanduser()
        train, *test = self._patterns.values()
        found = {TRAIN: list(find_files(self.path, [train]).values())}
        if test:
            found[TEST] = list(
                find_files(str(base.parent) if base.is_file() else self.path, test).values()
            )
            if both := set(found[TRAIN]) & set(found[TEST]):
                raise DataError(
                    f"{str(min(both))!r} matches parts.train and parts.test: make the patterns different"
                )
        return found


def _events(files: Mapping[str, list[Path]], shuffle: int | None) -> str:
    """SQL: an event a row (user_id, item_id, timestamp, part), in the order of the lines, a line's
    items in theirs.

    Places are reckoned by line, of which there are few: only the unnesting touches every event.
    """
    raw = " UNION ALL ".join(_lines(part, paths) for part, paths in files.items())
    before = f"sum(len(words) - 1) OVER (PARTITION BY {PART}, {USER} ORDER BY line ROWS UNBOUNDED PRECEDING) - (len(words) - 1)"
    item = id_text("word", "VARCHAR")
    by_hash = f"row_number() OVER (PARTITION BY {PART}, {USER} ORDER BY md5(concat_ws(':', {shuffle}, {USER}, word)), line, place) - 1"
    place = "before + place" if shuffle is None else by_hash
    return (
        f"WITH raw AS ({raw}),"
        f" numbered AS (SELECT {PART}, words, row_number() OVER () AS line FROM raw WHERE words[1] <> ''),"
        f" named AS (SELECT *, {id_text('words[1]', 'VARCHAR')} AS {USER} FROM numbered),"
        f" placed AS (SELECT *, CAST({before} AS BIGINT) AS before FROM named),"
        f" longest AS (SELECT coalesce(max(before + len(words) - 1), 0) AS shift FROM placed WHERE {PART} = '{TRAIN}'),"
        f" events AS (SELECT {USER}, {PART}, line, before, unnest(words[2:]) AS word, generate_subscripts(words[2:], 1) - 1 AS place"
        " FROM placed)"
        f" SELECT {USER}, {item} AS {ITEM}, {place} + CASE WHEN {PART} = '{TEST}' THEN shift ELSE 0 END AS {TIME}, {PART}"
        " FROM events, longest ORDER BY line, place"
    )


def _lines(part: str, files: list[Path]) -> str:
    """SQL: the lines of some files as lists of words."""
    words = r"string_split_regex(trim(line, E' \t\r'), '[ \t]+')"
    return f"SELECT {text(part)} AS {PART}, {words} AS words FROM {whole_lines(files)}"
