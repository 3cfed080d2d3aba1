"""A log in Delta tables, read by delta-rs as streams of Arrow batches."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any, Self

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
from duckdb import DuckDBPyConnection
from pydantic import Field, model_validator

from dssm_core.columns import INTERACTIONS, ITEMS, USERS
from dssm_core.data.database import duckdb_message
from dssm_core.data.sources.files import Pattern
from dssm_core.data.sources.mapped import WITH_IDS
from dssm_core.data.sources.protocol import LogTables, Span
from dssm_core.data.sources.streams import (
    STREAM,
    Between,
    OrderedTable,
    Stream,
    StreamedLog,
    read_streams,
)
from dssm_core.errors import ConfigError, ServiceError, masked

# What is read ahead is in memory.
AHEAD = {"batch_size": 65_536, "batch_readahead": 4, "fragment_readahead": 1}


class DeltaLogTable(OrderedTable):
    """One table of a log in a Delta table."""

    table: Pattern
    """The folder of the Delta table, below the source's path."""
    version: Annotated[int, Field(ge=0)] | None = None
    """The version that is read; null takes the latest one. The manifest of `ingest_data` says which
    one was read."""


class Delta(StreamedLog):
    """Delta tables in a folder or an object store. Needs the extra `delta`."""

    path: str
    """The folder of the tables, or its address in an object store, such as s3://lake/shop. The keys
    of the store are in the environment."""
    interactions: DeltaLogTable
    """The table of interactions."""
    users: Annotated[DeltaLogTable, WITH_IDS] | None = None
    """The table of users."""
    items: Annotated[DeltaLogTable, WITH_IDS] | None = None
    """The table of items."""

    @model_validator(mode="after")
    def _path_holds_no_key(self) -> Self:
        """Of the whole section, so that no message shows the value."""
        if masked(self.path) != self.path:
            raise ValueError(
                "path holds a key or a password, which everybody could read in the config: put it"
                " into the environment, such as AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
            )
        return self

    def content(self, span: Span | None) -> dict[str, str]:
        """The id and the version of each table."""
        return {
            name: f"{table.metadata().id} version {table.version()}"
            for name, (_, table) in self._tables().items()
        }

    def read_span(self, con: DuckDBPyConnection, span: Span | None) -> LogTables:
        """The tables, read now; files whose interactions are all outside the span are left out, if
        times are numbers, dates or timestamps.
        """
        tables = self._tables()
        versions = {name: str(table.version()) for name, (_, table) in tables.items()}
        streams = {
            name: _stream(spec, f"the Delta table {spec.table!r}", table, self.path)
            for name, (spec, table) in tables.items()
        }
        with _failures(self.path):
            return read_streams(con, streams, span, versions)

    def _tables(self) -> dict[str, tuple[DeltaLogTable, Any]]:
        specs = {INTERACTIONS: self.interactions, USERS: self.users, ITEMS: self.items}
        return {name: (spec, _table(self.path, spec)) for name, spec in specs.items() if spec}


def _delta() -> Any:
    try:
        return import_module("deltalake")
    except ImportError as error:
        raise ConfigError(
            "source kind 'delta' needs the extra: pip install 'dssm[delta]'"
        ) from error


def _table(path: str, spec: DeltaLogTable) -> Any:
    """A Delta table at its version."""
    delta = _delta()
    base = path.rstrip("/") if "://" in path else str(Path(path).expanduser())
    with _failures(base):
        try:
            table = delta.DeltaTable(f"{base}/{spec.table}")
        except delta.exceptions.TableNotFoundError as error:
            raise ConfigError(
                f"{base!r} has no Delta table {spec.table!r}: check data.source.path and the table"
            ) from error
        latest = table.version()
        if spec.version is None or spec.version == latest:
            return table
        if spec.version > latest:
            raise ConfigError(
                f"the Delta table {spec.table!r} has no version {spec.version}: its latest one is"
                f" {latest}"
            )
        table.load_as_version(spec.version)
    return table


def _stream(spec: DeltaLogTable, where: str, table: Any, path: str) -> Stream:
    """A Delta table as a stream of the rows of its Parquet files."""
    with _failures(path):
        dataset = table.to_pyarrow_dataset()

    @contextmanager
    def batches(between: Between | None) -> Iterator[pa.RecordBatchReader]:
        condition = _condition(between, dataset.schema) if between else None
        yield dataset.scanner(filter=condition, **AHEAD).to_reader()

    return Stream(spec, where, dataset.schema, batches)


def _condition(between: Between, schema: pa.Schema) -> pc.Expression:
    column = pc.field(between.column)
    kind = schema.field(between.column).type
    kind = pa.int64() if pa.types.is_integer(kind) else kind  # it may be too small for the bounds
    low, high = pa.scalar(between.low, kind), pa.scalar(between.high, kind)
    return ((column >= low) & (column < high)) | column.is_null()


@contextmanager
def _failures(path: str) -> Iterator[None]:
    """Turn errors of delta-rs and of the object store into this library's."""
    try:
        yield
    except _delta().exceptions.DeltaError as error:
        raise ConfigError(
            f"the Delta tables in {path!r} cannot be read: {_line(str(error))}. Check the path, the"
            " version, and that the table uses no features that delta-rs does not read"
        ) from error
    except OSError as error:
        raise _unreachable(path, str(error)) from None
    except duckdb.Error as error:
        if STREAM not in str(error):
            raise
        raise _unreachable(path, duckdb_message(error)) from None


def _unreachable(path: str, why: str) -> ServiceError:
    return ServiceError(
        f"the Delta tables in {path!r} cannot be reached: {_line(why)}. Check the store and its"
        " keys in the environment, then retry"
    )


def _line(text: str) -> str:
    """A message without colours and line ends."""
    return " ".join(re.sub(r"\x1b\[\d*m", "", text).split())
