"""What a source of click logs provides.

A source translates names, ids and times. It judges nothing: the validation step decides about rows
that break a rule.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Protocol, Self, runtime_checkable

from duckdb import DuckDBPyConnection, DuckDBPyRelation

from dssm_core.columns import HISTORY, TIME, USER


@dataclass(frozen=True)
class LogTables:
    """The tables of a log as DuckDB relations with canonical column names (dssm_core/columns.py).

    interactions: user_id and item_id as text (an id may be a number in one file and text in
    another), timestamp (int64, ms UTC), then every other column of the log under its own or its
    mapped name.
    histories: what users had taken before the log (user_id, timestamp, HISTORY as a list of ids),
    None where the log does not say it. Of a user, the row with the earliest time counts, the first
    of equal ones.
    users, items: one row an id, None where the log has no such table. Items may have
    created_at, available_from and available_until (int64, ms UTC).
    A time that cannot be parsed is NULL, and its text is in `<column>_raw`, so that the quarantine
    shows it.
    versions: the version of each table that was read, empty where tables have no versions.
    """

    interactions: DuckDBPyRelation
    users: DuckDBPyRelation | None = None
    items: DuckDBPyRelation | None = None
    histories: DuckDBPyRelation | None = None
    versions: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        interactions: DuckDBPyRelation,
        users: DuckDBPyRelation | None,
        items: DuckDBPyRelation | None,
        versions: Mapping[str, str] | None = None,
    ) -> Self:
        """The tables of a log whose interactions may have the column HISTORY."""
        known = versions or {}
        if HISTORY not in interactions.columns:
            return cls(interactions, users, items, versions=known)
        histories = interactions.project(f"{USER}, {TIME}, {HISTORY}")
        return cls(interactions.project(f"* EXCLUDE {HISTORY}"), users, items, histories, known)


@dataclass(frozen=True)
class Span:
    """Times in ms UTC: [start, end)."""

    start_ms: int
    end_ms: int

    @property
    def sql(self) -> str:
        """SQL: whether the time of a canonical row is in the span; NULL if it has none."""
        return self.around(TIME)

    def around(self, time: str) -> str:
        """SQL: whether a time in ms is in the span; NULL if it is."""
        return f"({time} >= {self.start_ms} AND {time} < {self.end_ms})"


class Source(Protocol):
    """A frozen pydantic model whose fields are its settings; `ingest.open_source` builds it."""

    timed: ClassVar[bool]
    """Whether timestamps are times; if false, they only order a user's events."""
    ignores: ClassVar[tuple[str, ...]]
    """Settings of the config that have no effect under this source, by dotted path."""

    def files(self) -> dict[str, Path]:
        """Every file that `read` reads, by name relative to the source's folder; empty for a
        generated log.

        Raises DataError naming the folder and the pattern when a pattern matches no file.
        """
        ...

    def read(self, con: DuckDBPyConnection) -> LogTables:
        """The tables of the log, evaluated lazily, rows in file order. Raises DataError when a file
        lacks a column.
        """
        ...


@runtime_checkable
class TableSource(Source, Protocol):
    """A source of tables that are no files, such as those of a database. It is asked for a span of
    time, so that a day does not read the whole log. `files` is empty.
    """

    def content(self, span: Span | None) -> dict[str, str]:
        """A text for each table that differs if its rows differ: a version, or a hash of what
        `read_span` would read.
        """
        ...

    def read_span(self, con: DuckDBPyConnection, span: Span | None) -> LogTables:
        """As `read`, without the interactions outside the span; those without a readable time are
        kept. Raises ServiceError if the source cannot be reached, ConfigError if it refuses.
        """
        ...
