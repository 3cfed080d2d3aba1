"""A log in Parquet files, described by a mapping in YAML."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from duckdb import DuckDBPyConnection, DuckDBPyRelation
from pydantic import BaseModel, ConfigDict

from dssm_core.columns import INTERACTIONS, ITEMS, USERS
from dssm_core.data.sources.canonical import to_canonical
from dssm_core.data.sources.files import FileTable, find_files, table_files
from dssm_core.data.sources.protocol import LogTables
from dssm_core.data.sql import literal


class Parquet(BaseModel):
    """Parquet files. Columns keep their types; ids become text."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)
    timed: ClassVar[bool] = True
    ignores: ClassVar[tuple[str, ...]] = ()
    path: str
    """A folder, or the one file of interactions."""
    interactions: FileTable
    """The files of interactions."""
    users: FileTable | None = None
    """The files of users."""
    items: FileTable | None = None
    """The files of items."""

    def files(self) -> dict[str, Path]:
        """Every file of every table, by relative name; DataError when a pattern matches no file."""
        tables = (self.interactions, self.users, self.items)
        return find_files(self.path, [table.files for table in tables if table])

    def read(self, con: DuckDBPyConnection) -> LogTables:
        """The tables. The files of a table may differ in columns and in the types of ids; columns
        are matched by name.
        """
        return LogTables(
            self._read(con, INTERACTIONS, self.interactions),
            self._read(con, USERS, self.users) if self.users else None,
            self._read(con, ITEMS, self.items) if self.items else None,
        )

    def _read(self, con: DuckDBPyConnection, name: str, spec: FileTable) -> DuckDBPyRelation:
        """Each file is brought to canonical form on its own: the types of ids may differ."""
        relations = [
            to_canonical(
                con.sql(f"SELECT * FROM read_parquet({literal(str(file))})"),
                name,
                spec,
                repr(file.name),
            )
            for file in table_files(self.path, spec, name == INTERACTIONS).values()
        ]
        queries = [f"({relation.sql_query()})" for relation in relations]
        return con.sql(" UNION ALL BY NAME ".join(queries))
