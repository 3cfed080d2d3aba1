"""A log in Iceberg tables, read by PyIceberg as streams of Arrow batches."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date, datetime
from importlib import import_module
from typing import Annotated, Any

import duckdb
import pyarrow as pa
from duckdb import DuckDBPyConnection
from pydantic import Field

from dssm_core.columns import INTERACTIONS, ITEMS, USERS
from dssm_core.data.database import duckdb_message
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
from dssm_core.errors import ConfigError, DssmError, ServiceError

NAME = r"[A-Za-z0-9]+"  # PyIceberg reads an underscore of a variable as a hyphen


class IcebergLogTable(OrderedTable):
    """One table of a log in an Iceberg table."""

    table: Annotated[str, Field(pattern=r"^[^.]+(\.[^.]+)+$")]
    """The table with its namespace, such as shop.clicks."""
    snapshot: int | None = None
    """The id of the snapshot that is read; null takes the current one. The manifest of
    `ingest_data` says which one was read."""


class Iceberg(StreamedLog):
    """Iceberg tables of a catalog. Needs the extra `iceberg`."""

    catalog: Annotated[str, Field(pattern=f"^{NAME}$")] = "default"
    """Name of the catalog. Its address and keys are in the environment, such as
    PYICEBERG_CATALOG__DEFAULT__URI, or in ~/.pyiceberg.yaml."""
    interactions: IcebergLogTable
    """The table of interactions."""
    users: Annotated[IcebergLogTable, WITH_IDS] | None = None
    """The table of users."""
    items: Annotated[IcebergLogTable, WITH_IDS] | None = None
    """The table of items."""

    def content(self, span: Span | None) -> dict[str, str]:
        """The id and the snapshot of each table."""
        return {
            name: f"{table.metadata.table_uuid} snapshot {_snapshot(spec, table)}"
            for name, (spec, table) in self._tables().items()
        }

    def read_span(self, con: DuckDBPyConnection, span: Span | None) -> LogTables:
        """The tables, read now; files whose interactions are all outside the span are left out, if
        times are numbers, dates or timestamps.
        """
        tables = self._tables()
        versions = {name: str(_snapshot(*table)) for name, table in tables.items()}
        with _failures(self.catalog):
            streams = {name: _stream(*table) for name, table in tables.items()}
            return read_streams(con, streams, span, versions)

    def _tables(self) -> dict[str, tuple[IcebergLogTable, Any]]:
        specs = {INTERACTIONS: self.interactions, USERS: self.users, ITEMS: self.items}
        catalog_module = _part("catalog")
        with _failures(self.catalog):
            catalog = catalog_module.load_catalog(self.catalog)
            return {
                name: (spec, catalog.load_table(spec.table)) for name, spec in specs.items() if spec
            }


def _part(name: str) -> Any:
    """A module of PyIceberg."""
    try:
        return import_module(f"pyiceberg.{name}")
    except ImportError as error:
        raise ConfigError(
            "source kind 'iceberg' needs the extra: pip install 'dssm[iceberg]'"
        ) from error


def _snapshot(spec: IcebergLogTable, table: Any) -> int | None:
    """The id of the snapshot to read; None if the table has none, and so no rows."""
    if spec.snapshot is None:
        current = table.current_snapshot()
        return current.snapshot_id if current else None
    if table.snapshot_by_id(spec.snapshot) is None:
        raise ConfigError(
            f"the Iceberg table {spec.table!r} has no snapshot {spec.snapshot}: it may have"
            " expired, or leave snapshot out for the current one"
        )
    return spec.snapshot


def _stream(spec: IcebergLogTable, table: Any) -> Stream:
    """An Iceberg table as a stream of the rows of its files."""
    schema = _part("io.pyarrow").schema_to_pyarrow(table.schema(), include_field_ids=False)

    @contextmanager
    def batches(between: Between | None) -> Iterator[pa.RecordBatchReader]:
        snapshot = _snapshot(spec, table)
        yield table.scan(_condition(between), snapshot_id=snapshot).to_arrow_batch_reader()

    return Stream(spec, f"the Iceberg table {spec.table!r}", schema, batches)


def _condition(between: Between | None) -> Any:
    terms = _part("expressions")
    if between is None:
        return terms.AlwaysTrue()
    inside = terms.And(
        terms.GreaterThanOrEqual(between.column, _value(between.low)),
        terms.LessThan(between.column, _value(between.high)),
    )
    return terms.Or(inside, terms.IsNull(between.column))


def _value(bound: Any) -> Any:
    return bound.isoformat() if isinstance(bound, date | datetime) else bound


@contextmanager
def _failures(catalog: str) -> Iterator[None]:
    """Turn errors of PyIceberg, of the catalog and of the object store into this library's. The
    original error is left out: it may hold the address of the catalog.
    """
    missing = (_part("exceptions").NoSuchTableError, _part("exceptions").NoSuchNamespaceError)
    refused = (
        _part("exceptions").NotInstalledError,
        _part("exceptions").UnauthorizedError,
        _part("exceptions").ForbiddenError,
        ValueError,
    )
    try:
        yield
    except DssmError:
        raise
    except missing as error:
        raise ConfigError(
            f"the catalog {catalog!r} has no such Iceberg table: {error}. Check the table and"
            " data.source.catalog"
        ) from None
    except refused as error:
        raise ConfigError(
            f"the Iceberg catalog {catalog!r} cannot be used: {error}. Check its settings in the"
            f" environment, such as PYICEBERG_CATALOG__{catalog.upper()}__URI"
        ) from None
    except duckdb.Error as error:
        if STREAM not in str(error):
            raise
        raise _unreachable(catalog, duckdb_message(error)) from None
    except Exception as error:  # of the many libraries of catalogs and stores
        raise _unreachable(catalog, f"{type(error).__name__}: {error}") from None


def _unreachable(catalog: str, why: str) -> ServiceError:
    return ServiceError(
        f"the tables of the Iceberg catalog {catalog!r} cannot be reached: {why}. Check the catalog"
        " and the store, then retry"
    )
