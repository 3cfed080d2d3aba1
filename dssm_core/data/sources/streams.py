"""Tables that are no files: streams of Arrow batches from a database or a table format.

A stream is read once into a temporary table of DuckDB, which goes to disk beyond its part of the
memory. The rows are sorted there: by `order`, then by all other columns. So the number of a row
does not depend on the order in which the rows arrive, which no database promises.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any, ClassVar, Self
from zoneinfo import ZoneInfo

import duckdb
import pyarrow as pa
from duckdb import DuckDBPyConnection, DuckDBPyRelation
from pydantic import BaseModel, ConfigDict, model_validator

from dssm_core.columns import (
    HOUR_MS,
    IMPRESSION,
    INTERACTIONS,
    INTERNAL,
    ITEMS,
    TIME,
    USERS,
)
from dssm_core.data.sources.canonical import check_distinct, time_ms, to_canonical
from dssm_core.data.sources.mapped import ROW_UNIT, MappedTable
from dssm_core.data.sources.protocol import LogTables, Span
from dssm_core.data.sources.sessions import SESSION
from dssm_core.data.sql import identifier, literal
from dssm_core.errors import DataError
from dssm_core.families import did_you_mean

STREAM = f"{INTERNAL}stream"
STORED = f"{INTERNAL}stored_"
ROUNDING_MS = 1_000
CLOCK_CHANGES_MS = 3 * HOUR_MS  # more than clocks are set back where summer time ends
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
PER_S = {"s": 1, "ms": 1_000, "us": 1_000_000, "ns": 1_000_000_000}


class OrderedTable(MappedTable):
    """One table of a log that is no file."""

    order: tuple[str, ...] = ()
    """Columns by which the rows are ordered, such as [id]. It decides about interactions of equal
    times. Rows that are equal in these columns are ordered by all other columns."""

    @model_validator(mode="after")
    def _rows_have_an_order(self) -> Self:
        if self.time_unit == ROW_UNIT and not self.order:
            raise ValueError(
                f"time_unit {ROW_UNIT!r} takes the order of the rows for the order of the events,"
                " but the rows of a table have none: name the columns in `order`, such as [id]"
            )
        return self


class StreamedLog(BaseModel, ABC):
    """A log whose tables are no files: what its sources have in common (see TableSource)."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)
    timed: ClassVar[bool] = True
    ignores: ClassVar[tuple[str, ...]] = ()

    def files(self) -> dict[str, Path]:
        """Empty: `content` says what is read."""
        return {}

    def read(self, con: DuckDBPyConnection) -> LogTables:
        """The tables, read now."""
        return self.read_span(con, None)

    @abstractmethod
    def read_span(self, con: DuckDBPyConnection, span: Span | None) -> LogTables:
        """The tables without the interactions outside the span, read now."""


@dataclass(frozen=True)
class Between:
    """The rows whose column is in [low, high), and those without a value."""

    column: str
    low: Any
    high: Any


@dataclass(frozen=True)
class Stream:
    """A table that can be read.

    where: the table, for error messages. schema: its columns. batches: opens the rows; `Between`
    is a condition on the time that leaves rows out.
    """

    spec: OrderedTable
    where: str
    schema: pa.Schema
    batches: Callable[[Between | None], AbstractContextManager[pa.RecordBatchReader]]


def read_streams(
    con: DuckDBPyConnection,
    streams: Mapping[str, Stream],
    span: Span | None,
    versions: Mapping[str, str] | None = None,
) -> LogTables:
    """The tables of a log, read now. streams: interactions, and users and items if there are any.

    Raises DataError if a column is missing, before a row is read.
    """
    for name, stream in streams.items():
        _check(con, name, stream)
    rows = {name: _rows(con, name, stream, span) for name, stream in streams.items()}
    return LogTables.of(rows[INTERACTIONS], rows.get(USERS), rows.get(ITEMS), versions)


def rows_hash(name: str, stream: Stream, span: Span | None) -> str:
    """The number of rows of a stream and a hash of them that does not depend on their order."""
    columns = ", ".join(map(identifier, stream.schema.names))
    with duckdb.connect() as con, _opened(con, name, stream, span) as rows:
        (row,) = rows.aggregate(f"count(*), sum(hash({columns}))").fetchall()
    return "-".join(map(str, row))


def _check(con: DuckDBPyConnection, name: str, stream: Stream) -> None:
    """DataError if a column that the settings name is missing, or two have one name."""
    check_distinct(stream.schema.names, stream.where)
    for column in stream.spec.order:
        if column not in stream.schema.names:
            hint = did_you_mean(column, stream.schema.names)
            raise DataError(f"{stream.where} has no column {column!r}, which order names: {hint}")
    _canonical(_numbered(con.from_arrow(stream.schema.empty_table()), stream), name, stream)


def _rows(
    con: DuckDBPyConnection, name: str, stream: Stream, span: Span | None
) -> DuckDBPyRelation:
    """The canonical rows of a stream, in order."""
    with _opened(con, name, stream, span) as rows:
        _numbered(rows, stream).order(_keys(stream)).create(STORED + name)
    return _canonical(con.table(STORED + name), name, stream)


@contextmanager
def _opened(
    con: DuckDBPyConnection, name: str, stream: Stream, span: Span | None
) -> Iterator[DuckDBPyRelation]:
    """The rows of a stream, to be read once, without the interactions outside the span."""
    time = _time(stream) if name == INTERACTIONS else None
    with stream.batches(_between(stream, time, span)) as batches:
        con.register(STREAM, batches)
        rows = con.table(STREAM)
        if span and time:
            kind = dict(zip(rows.columns, rows.types, strict=True))[time]
            value = time_ms(identifier(time), str(kind), stream.spec)
            rows = rows.filter(f"{value} IS NULL OR {span.around(value)}")
        yield rows
        con.unregister(STREAM)


def _canonical(rows: DuckDBPyRelation, name: str, stream: Stream) -> DuckDBPyRelation:
    return to_canonical(rows, name, stream.spec, stream.where)


def _keys(stream: Stream) -> str:
    """SQL: what the rows are ordered by. Without `order` the time comes first, by which they are
    sorted later.
    """
    names = stream.schema.names
    first = stream.spec.order or [name for name in names if name == _time(stream)]
    return ", ".join(map(identifier, dict.fromkeys([*first, *names])))


def _time(stream: Stream) -> str | None:
    """The column of the times, None if the table has none."""
    name = stream.spec.columns.get(TIME, TIME)
    used = stream.spec.time_unit != ROW_UNIT and name in stream.schema.names
    return str(name) if used else None


def _numbered(rows: DuckDBPyRelation, stream: Stream) -> DuckDBPyRelation:
    """The rows with SESSION and IMPRESSION, if they are needed and the table has none. A row is
    numbered among those of its time, so that the number is the same in every span.
    """
    spec, time = stream.spec, _time(stream)
    among = f"PARTITION BY {identifier(time)} " if time else ""
    number = f"row_number() OVER ({among}ORDER BY {_keys(stream)})"
    columns = ["*"]
    if spec.anonymous:
        columns.append(f"{literal(f'{INTERACTIONS}:')} || {number} AS {SESSION}")
    if spec.explode and IMPRESSION not in {*spec.columns, *stream.schema.names}:
        at = f"CAST({identifier(time)} AS VARCHAR), " if time else ""
        columns.append(f"concat_ws('-', {at}{number}) AS {IMPRESSION}")
    return rows.project(", ".join(columns))


def _between(stream: Stream, column: str | None, span: Span | None) -> Between | None:
    """The condition on the column of the times that holds for every row in a span; None if it is no
    number or time, such as text.
    """
    if span is None or column is None or stream.spec.time_format:
        return None
    bound = _bound(stream.schema.field(column).type, stream.spec)
    if bound is None:
        return None
    return Between(column, bound(span.start_ms, False), bound(span.end_ms, True))


def _bound(kind: pa.DataType, spec: MappedTable) -> Callable[[int, bool], Any] | None:
    """A function that turns a time in ms UTC into a value of a column, a little before it, or after
    it if `after` is true: times are rounded to ms, and a local time can be twice in a night.
    """
    zoned = bool(getattr(kind, "tz", None))
    zone = UTC if zoned else ZoneInfo(spec.timezone)
    moved_ms = ROUNDING_MS if zoned else CLOCK_CHANGES_MS

    def number(time_ms: int, after: bool) -> int:
        per_s = PER_S[spec.time_unit]
        return (time_ms + (ROUNDING_MS if after else -ROUNDING_MS)) * per_s // 1000 + after

    def moment(time_ms: int, after: bool) -> datetime:
        moved = time_ms + (moved_ms if after else -moved_ms)
        at = (EPOCH + timedelta(milliseconds=moved)).astimezone(zone)
        return at if zoned else at.replace(tzinfo=None)

    def day(time_ms: int, after: bool) -> date:
        return moment(time_ms, after).date() + timedelta(days=after)

    if pa.types.is_timestamp(kind):
        return moment
    if pa.types.is_date(kind):
        return day
    numeric = pa.types.is_integer(kind) or pa.types.is_floating(kind)
    return number if numeric and spec.time_unit in PER_S else None
