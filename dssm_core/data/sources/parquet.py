"""A log in Parquet files, described by a mapping in YAML."""

from __future__ import annotations

from pathlib import Path

from duckdb import DuckDBPyConnection, DuckDBPyRelation
from pydantic import BaseModel, ConfigDict

from dssm_core.columns import INTERACTIONS, ITEMS, USERS
from dssm_core.data.sources.columns import Table, canonical, find_files, text
from dssm_core.data.sources.protocol import Tables


class Parquet(BaseModel):
    """Tables in Parquet. path: a folder, or the one interactions file. Columns keep their types,
    ids become text.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    path: str
    interactions: Table
    users: Table | None = None
    items: Table | None = None

    def files(self) -> dict[str, Path]:
        """Every file of every table, by relative name; DataError when a pattern matches nothing."""
        return find_files(
            self.path,
            [table.files for table in (self.interactions, self.users, self.items) if table],
        )

    def read(self, con: DuckDBPyConnection) -> Tables:
        """The tables; files of one table may differ in columns and id types and are joined by name."""
        base = Path(self.path).expanduser()
        beside = str(base.parent) if base.is_file() else self.path
        return Tables(
            self._table(con, INTERACTIONS, self.interactions, self.path),
            self._table(con, USERS, self.users, beside) if self.users else None,
            self._table(con, ITEMS, self.items, beside) if self.items else None,
        )

    def _table(
        self, con: DuckDBPyConnection, name: str, spec: Table, base: str
    ) -> DuckDBPyRelation:
        """Each file is made canonical by itself: an id may be a number in one and text in another."""
        relations = [
            canonical(
                con,
                con.sql(f"SELECT * FROM read_parquet({text(str(file))})"),
                name,
                spec,
                repr(file.name),
            )
            for file in find_files(base, [spec.files]).values()
        ]
        queries = [relation.sql_query() for relation in relations]
        return con.sql(" UNION ALL BY NAME ".join(f"({query})" for query in queries))
