"""The MovieLens `::` files: ratings.dat (plain or .gz), users.dat, movies.dat (latin-1)."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from duckdb import DuckDBPyConnection
from pydantic import BaseModel, ConfigDict

from dssm_core.columns import INTERACTIONS, ITEM, ITEMS, TIME, USER, USERS
from dssm_core.data.sources.delimited import TextTable, read_text
from dssm_core.data.sources.files import find_files
from dssm_core.data.sources.protocol import LogTables

TABLES = {
    INTERACTIONS: TextTable(
        files="ratings.dat*",
        separator="::",
        quote="",
        names=(USER, ITEM, "rating", TIME),
        time_unit="s",
    ),
    USERS: TextTable(
        files="users.dat*",
        separator="::",
        quote="",
        names=(USER, "gender", "age", "occupation", "zip"),
    ),
    ITEMS: TextTable(
        files="movies.dat*",
        separator="::",
        quote="",
        names=(ITEM, "title", "genres"),
        encoding="latin-1",
    ),
}


class MovieLens(BaseModel):
    """`genres` is multi-valued with separator "|"; `rating` is 1 to 5."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)
    timed: ClassVar[bool] = True
    ignores: ClassVar[tuple[str, ...]] = ()
    path: str
    """The folder of the three files."""

    def files(self) -> dict[str, Path]:
        """The three files; DataError naming the one that is missing."""
        return find_files(self.path, [table.files for table in TABLES.values()])

    def read(self, con: DuckDBPyConnection) -> LogTables:
        """Ratings as interactions, users, and movies as items."""
        tables = {
            name: read_text(con, find_files(self.path, [table.files]), name, table)
            for name, table in TABLES.items()
        }
        return LogTables(tables[INTERACTIONS], tables[USERS], tables[ITEMS])
