"""User sequences in text files: one line a user, `user item item item …` in time order. Many papers
publish their data in this form.

There are no times, so the timestamp of an interaction is its position: 0 for a user's first item, 1
for the next one (as milliseconds after 1970-01-01). Timestamps order the events of one user only;
they say nothing about the events of two users. Use a split without days (`leave_one_out`, `last_n`,
`fixed`, `holdout`) and disable item activity.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, ClassVar, Self

from duckdb import DuckDBPyConnection, DuckDBPyRelation
from pydantic import BaseModel, ConfigDict, Field, model_validator

from dssm_core.columns import ITEM, ITEMS, PART, TIME, USER, USERS
from dssm_core.data.sources.delimited import TextTable, read_text
from dssm_core.data.sources.files import Pattern, find_files, table_files
from dssm_core.data.sources.ids import id_text
from dssm_core.data.sources.protocol import LogTables
from dssm_core.data.sql import literal, whole_lines
from dssm_core.errors import DataError

TRAIN, TEST = "train", "test"


class PartPatterns(BaseModel):
    """The two glob patterns of a published split: training lines and test lines."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)
    train: Pattern
    """Glob pattern of the training lines."""
    test: Pattern
    """Glob pattern of the test lines."""


class Sequences(BaseModel):
    """Lines of a user and the user's items, separated by blanks or tabs: either `lines`, or
    `parts`, which give each interaction a column `part` of 'train' or 'test'. A second line of a
    user continues the first one; a line that has only a user holds no interaction; empty lines are
    ignored. With `parts` every position in test is after every position in train.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)
    timed: ClassVar[bool] = False
    ignores: ClassVar[tuple[str, ...]] = ()
    path: str
    """A folder, or the one file of lines."""
    lines: Pattern | None = None
    """Glob pattern of the files of lines, below `path`."""
    parts: PartPatterns | None = None
    """Glob patterns of the files of train and of test, instead of `lines`."""
    users: TextTable | None = None
    """The files of users."""
    items: TextTable | None = None
    """The files of items."""
    shuffle: Annotated[int, Field(ge=0)] | None = None
    """Seed by which the items of each user are shuffled, for lines without an order; null keeps the
    order."""

    @model_validator(mode="after")
    def _one_of_two(self) -> Self:
        if (self.lines is None) == (self.parts is None):
            raise ValueError(
                "give either `lines`, a glob pattern such as sequences.txt*, or `parts` with the"
                " patterns `train` and `test`"
            )
        return self

    def files(self) -> dict[str, Path]:
        """Every file of lines and tables, by relative name; DataError when a pattern matches
        no file.
        """
        tables = [table.files for table in (self.users, self.items) if table]
        return find_files(self.path, [*self._patterns.values(), *tables])

    def read(self, con: DuckDBPyConnection) -> LogTables:
        """interactions: user_id, item_id, timestamp (the position), and `part` if `parts` is set;
        lines in file order.
        """
        columns = [USER, ITEM, TIME, *([PART] if self.parts else [])]
        events = con.sql(_events(self._files_by_part(), self.shuffle))
        return LogTables(
            events.project(", ".join(columns)),
            self._table(con, USERS, self.users),
            self._table(con, ITEMS, self.items),
        )

    def _table(
        self, con: DuckDBPyConnection, name: str, spec: TextTable | None
    ) -> DuckDBPyRelation | None:
        if not spec:
            return None
        return read_text(con, table_files(self.path, spec, False), name, spec)

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
        files = {TRAIN: list(find_files(self.path, [train]).values())}
        if test:
            folder = str(base.parent) if base.is_file() else self.path
            files[TEST] = list(find_files(folder, test).values())
            if both := set(files[TRAIN]) & set(files[TEST]):
                raise DataError(
                    f"{str(min(both))!r} matches both parts.train and parts.test: make the patterns"
                    " different"
                )
        return files


def _events(files: Mapping[str, list[Path]], shuffle: int | None) -> str:
    """SQL: one row an event (user_id, item_id, timestamp, part), in the order of lines and of the
    items in a line.

    Positions are computed by line, because there are few lines: only `unnest` touches every event.
    """
    raw = " UNION ALL ".join(_lines(part, paths) for part, paths in files.items())
    by_user = f"PARTITION BY {PART}, {USER}"
    before = (
        f"sum(len(words) - 1) OVER ({by_user} ORDER BY line ROWS UNBOUNDED PRECEDING)"
        " - (len(words) - 1)"
    )
    hashed = f"md5(concat_ws(':', {shuffle}, {USER}, word))"
    by_hash = f"row_number() OVER ({by_user} ORDER BY {hashed}, line, position) - 1"
    position = "before + position" if shuffle is None else by_hash
    return f"""
    WITH raw AS ({raw}),
    numbered AS (
        SELECT {PART}, words, row_number() OVER () AS line FROM raw WHERE words[1] <> ''
    ),
    named AS (SELECT *, {id_text("words[1]", "VARCHAR")} AS {USER} FROM numbered),
    placed AS (SELECT *, CAST({before} AS BIGINT) AS before FROM named),
    longest AS (
        SELECT coalesce(max(before + len(words) - 1), 0) AS shift FROM placed
        WHERE {PART} = '{TRAIN}'
    ),
    events AS (
        SELECT {USER}, {PART}, line, before, unnest(words[2:]) AS word,
            generate_subscripts(words[2:], 1) - 1 AS position
        FROM placed
    )
    SELECT {USER}, {id_text("word", "VARCHAR")} AS {ITEM},
        {position} + CASE WHEN {PART} = '{TEST}' THEN shift ELSE 0 END AS {TIME}, {PART}
    FROM events, longest ORDER BY line, position
    """


def _lines(part: str, files: list[Path]) -> str:
    """SQL: the lines of files as lists of words."""
    words = r"string_split_regex(trim(line, E' \t\r'), '[ \t]+')"
    return f"SELECT {literal(part)} AS {PART}, {words} AS words FROM {whole_lines(files)}"
