"""A log in files of JSON objects, one a line (.jsonl, .ndjson), described by a mapping in YAML."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import chain
from pathlib import Path
from typing import Annotated, Any, ClassVar

import duckdb
from duckdb import DuckDBPyConnection, DuckDBPyRelation
from pydantic import BaseModel, ConfigDict

from dssm_core.columns import INTERACTIONS, ITEM, ITEMS, USER, USERS
from dssm_core.data.sources.canonical import check_distinct, to_canonical
from dssm_core.data.sources.files import FileTable, find_files, named_files, table_files
from dssm_core.data.sources.mapped import WITH_IDS
from dssm_core.data.sources.protocol import LogTables
from dssm_core.data.sources.sessions import session_sql
from dssm_core.data.sql import file_literal, identifier, literal
from dssm_core.errors import DataError

KEPT = ("bigint", "ubigint", "hugeint", "double", "boolean")  # other values are text as written
MAX_FILES = 2**31  # all files are read to find the keys
LAYOUT = "format = 'newline_delimited', records = 'true', hive_partitioning = false"


class JsonLines(BaseModel):
    """JSON objects, one a line, plain or gzip (.gz). Columns are the keys; the key `id` of an
    object `user` is the column `user.id`. Numbers, true and false, and lists keep their types; ids
    are text, and times text or whole numbers.
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
        """The tables. The objects of a table may differ in keys and in the types of their values.
        All files are read once before, to find the keys.
        """
        return LogTables.of(
            self._read(con, INTERACTIONS, self.interactions),
            self._read(con, USERS, self.users) if self.users else None,
            self._read(con, ITEMS, self.items) if self.items else None,
        )

    def _read(self, con: DuckDBPyConnection, name: str, spec: FileTable) -> DuckDBPyRelation:
        files = table_files(self.path, spec, name == INTERACTIONS)
        where = named_files(files, name, spec)
        return to_canonical(read_objects(con, files, where, spec), name, spec, where)


def read_objects(
    con: DuckDBPyConnection, files: Mapping[str, Path], where: str, spec: FileTable
) -> DuckDBPyRelation:
    """The values of the objects in file order, one column a key."""
    names = f"[{', '.join(map(file_literal, files.values()))}]"
    types = _types(con, names, where)
    paths = [path for key, kind in types.items() for path in _paths((key,), kind)]
    dotted = {".".join(path): path for path in paths}
    check_distinct((".".join(path) for path in paths), where)
    own = [spec.columns.get(name, name) for name in (USER, ITEM)]
    columns_of_ids = [(name,) if isinstance(name, str) else name for name in own]
    ids = {dotted.get(name) for name in chain.from_iterable(columns_of_ids)}
    columns = ", ".join(
        f"{identifier(key)}: {literal(_type((key,), kind, ids))}" for key, kind in types.items()
    )
    selected = ", ".join(
        f"{'.'.join(map(identifier, path))} AS {identifier(name)}" for name, path in dotted.items()
    )

    def query(paths: str, more: str = "") -> str:
        return (
            f"SELECT {selected}{more} FROM read_json({paths}, {LAYOUT}, auto_detect = false,"
            f" columns = {{{columns}}})"
        )

    if not spec.anonymous:
        return con.sql(query(names))
    queries = [query(file_literal(file), f", {session_sql(path)}") for path, file in files.items()]
    return con.sql(" UNION ALL BY NAME ".join(queries))


def _types(con: DuckDBPyConnection, names: str, where: str) -> dict[str, Any]:
    """The DuckDB type of each key of the objects in the files of a SQL list."""
    try:
        found = con.sql(
            f"SELECT * FROM read_json({names}, {LAYOUT}, union_by_name = true, sample_size = -1,"
            f" maximum_sample_files = {MAX_FILES}, map_inference_threshold = -1,"
            " field_appearance_threshold = 0, convert_strings_to_integers = false)"
        )
    except duckdb.BinderException as error:
        raise DataError(
            f"{where} has no JSON object with keys: it must have one object a line, such as"
            ' {"user_id": 7, "item_id": "x", "timestamp": 1709251200000}'
        ) from error
    return dict(zip(found.columns, found.types, strict=True))


def _paths(path: tuple[str, ...], kind: Any) -> Iterator[tuple[str, ...]]:
    """The paths of keys that lead to a value that is no object."""
    if kind.id != "struct":
        yield path
        return
    for key, inner in kind.children:
        yield from _paths((*path, key), inner)


def _type(path: tuple[str, ...], kind: Any, ids: set[tuple[str, ...] | None]) -> str:
    """The SQL type by which the values at a path are read."""
    if kind.id == "struct":
        keys = (f"{identifier(key)} {_type((*path, key), own, ids)}" for key, own in kind.children)
        return f"STRUCT({', '.join(keys)})"
    if kind.id == "list":
        ((_, inner),) = kind.children
        return f"{_type(path, inner, ids)}[]"
    return str(kind) if kind.id in KEPT and path not in ids else "VARCHAR"
