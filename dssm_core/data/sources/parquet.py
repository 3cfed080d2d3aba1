"""A log in Parquet files, described by a mapping in YAML."""

from __future__ import annotations

from pathlib import Path, PurePosixPath
from typing import Annotated, ClassVar
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.parquet as pq
from duckdb import DuckDBPyConnection, DuckDBPyRelation
from pydantic import BaseModel, ConfigDict

from dssm_core.columns import INTERACTIONS, ITEMS, USERS
from dssm_core.data.sources.canonical import check_distinct, to_canonical
from dssm_core.data.sources.files import FileTable, find_files, table_files
from dssm_core.data.sources.mapped import WITH_IDS
from dssm_core.data.sources.protocol import LogTables
from dssm_core.data.sources.sessions import session_sql
from dssm_core.data.sql import folded, identifier, literal, parquet
from dssm_core.errors import DataError


class Parquet(BaseModel):
    """Parquet files. Columns keep their types; ids become text. A folder such as `country=de` below
    `path` is a column of text, unless the file has a column of that name.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)
    timed: ClassVar[bool] = True
    ignores: ClassVar[tuple[str, ...]] = ()
    path: str
    """A folder, or the one file of interactions."""
    interactions: FileTable
    """The files of interactions."""
    users: Annotated[FileTable, WITH_IDS] | None = None
    """The files of users."""
    items: Annotated[FileTable, WITH_IDS] | None = None
    """The files of items."""

    def files(self) -> dict[str, Path]:
        """Every file of every table, by relative name; DataError when a pattern matches no file."""
        tables = (self.interactions, self.users, self.items)
        return find_files(self.path, [table.files for table in tables if table])

    def read(self, con: DuckDBPyConnection) -> LogTables:
        """The tables. The files of a table may differ in columns and in the types of ids; columns
        are matched by name.
        """
        return LogTables.of(
            self._read(con, INTERACTIONS, self.interactions),
            self._read(con, USERS, self.users) if self.users else None,
            self._read(con, ITEMS, self.items) if self.items else None,
        )

    def _read(self, con: DuckDBPyConnection, name: str, spec: FileTable) -> DuckDBPyRelation:
        """Each file is brought to canonical form on its own: the types of ids may differ."""
        files = table_files(self.path, spec, name == INTERACTIONS)
        relations = [
            to_canonical(_read_file(con, path, file, spec), name, spec, repr(path), nth)
            for nth, (path, file) in enumerate(files.items())
        ]
        queries = [f"({relation.sql_query()})" for relation in relations]
        return con.sql(" UNION ALL BY NAME ".join(queries))


def _read_file(con: DuckDBPyConnection, path: str, file: Path, spec: FileTable) -> DuckDBPyRelation:
    """The columns of a file, then those of its folders. path: the file's, below the source's."""
    names = _names(file)
    check_distinct(names, repr(str(file)))  # DuckDB would rename the second of two equal names
    columns = [f"{literal(value)} AS {identifier(key)}" for key, value in _folders(path, names)]
    columns += [session_sql(path)] if spec.anonymous else []
    return con.sql(f"SELECT {', '.join(['*', *columns])} FROM {parquet(file)}")


def _names(file: Path) -> list[str]:
    try:
        return list(pq.read_schema(file).names)
    except (pa.ArrowException, OSError, UnicodeError) as error:
        raise DataError(
            f"{str(file)!r} cannot be read as Parquet, it is damaged or of another kind: copy the"
            " file again"
        ) from error


def _folders(path: str, names: list[str]) -> list[tuple[str, str]]:
    """Name and value of each folder `name=value` that is not a column of the file."""
    taken = set(map(folded, names))
    pairs = [part.partition("=") for part in PurePosixPath(path).parent.parts]
    return [
        (unquote(name), unquote(value))
        for name, equals, value in pairs
        if name and equals and folded(unquote(name)) not in taken
    ]
