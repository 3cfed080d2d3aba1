"""What a source of click logs must be able to do.

A source only translates names, ids and times. It judges nothing: rows that break a rule are
validation's.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from duckdb import DuckDBPyConnection, DuckDBPyRelation


@dataclass(frozen=True)
class Tables:
    """A log as DuckDB relations with canonical column names (schema.py).

    interactions: user_id, item_id (text, whatever the file's type: an id that is a number in one
    file and text in another is one id), timestamp (int64, ms UTC), then every other column of the
    log under its own or mapped name.
    users / items: one row an id, None where the log has no such table; items may have created_at
    (int64, ms UTC). Text that is no time becomes NULL, and the text stands in `<column>_raw`, so
    that a quarantined row shows it.
    """

    interactions: DuckDBPyRelation
    users: DuckDBPyRelation | None = None
    items: DuckDBPyRelation | None = None


class Source(Protocol):
    """A frozen pydantic model whose fields are its settings; build it with `ingest.open_source`.

    One whose timestamps only order a user's events says so by a class variable `timed = False`.
    """

    def files(self) -> dict[str, Path]:
        """Every file that `read` reads, by name relative to the source's folder; empty for a
        generated log.

        Raises DataError naming folder and pattern when nothing matches.
        """
        ...

    def read(self, con: DuckDBPyConnection) -> Tables:
        """The log's tables, lazily, rows in file order. Raises DataError when a file lacks a
        column.
        """
        ...
