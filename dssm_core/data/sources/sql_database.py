"""A log in tables of a database, read by ADBC as streams of Arrow batches."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date, datetime
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any, Self

import duckdb
import pyarrow as pa
from duckdb import DuckDBPyConnection
from pydantic import Field, model_validator

from dssm_core.columns import INTERACTIONS, ITEMS, USERS
from dssm_core.data.sources.connections import (
    address_in,
    is_variable,
    scheme_of,
    without_secrets,
)
from dssm_core.data.sources.mapped import WITH_IDS
from dssm_core.data.sources.protocol import LogTables, Span
from dssm_core.data.sources.streams import (
    STREAM,
    Between,
    OrderedTable,
    Stream,
    StreamedLog,
    read_streams,
    rows_hash,
)
from dssm_core.data.sql import identifier
from dssm_core.errors import ConfigError, ServiceError

DRIVERS = {"postgresql": "postgresql", "postgres": "postgresql", "sqlite": "sqlite"}
REFUSED = re.compile(
    r"authentication failed|no password supplied|does not exist|pg_hba|permission denied"
)
SAMPLE_ROWS = 1_000
SQLITE = "sqlite:////path/of/the/file.db"
# Classes of SQLSTATE after which the same query may succeed: connection, rollback, resources,
# intervention of an operator, failure of the system.
PASSING = ("08", "40", "53", "57", "58")


class SqlTable(OrderedTable):
    """One table of a log in a database."""

    query: Annotated[str, Field(min_length=1)]
    """A SELECT whose rows are the table, such as `SELECT * FROM clicks`. The condition on the days
    is added to it by the database."""


class SqlDatabase(StreamedLog):
    """Tables of a database: PostgreSQL or SQLite. Needs the extra `sql`."""

    connection: str
    """Name of the environment variable that holds the address, such as CLICKS_DB or
    AIRFLOW_CONN_CLICKS. The address itself has no place in a config, because it holds a password.
    """
    interactions: SqlTable
    """The query of interactions."""
    users: Annotated[SqlTable, WITH_IDS] | None = None
    """The query of users."""
    items: Annotated[SqlTable, WITH_IDS] | None = None
    """The query of items."""

    @model_validator(mode="after")
    def _connection_is_a_variable(self) -> Self:
        """Of the whole section, so that no message shows the value."""
        if not is_variable(self.connection):
            raise ValueError(
                "connection must be the name of an environment variable that holds the address,"
                " such as CLICKS_DB: an address in a config would show its password to everybody"
                " who reads the config"
            )
        return self

    def content(self, span: Span | None) -> dict[str, str]:
        """A hash of the rows of each table: they are read."""
        with _database(self.connection) as database:
            return {
                name: rows_hash(name, stream, span)
                for name, stream in self._streams(database).items()
            }

    def read_span(self, con: DuckDBPyConnection, span: Span | None) -> LogTables:
        """The tables, read now; the database leaves out interactions outside the span, if their
        times are numbers or times.
        """
        with _database(self.connection) as database:
            return read_streams(con, self._streams(database), span)

    def _streams(self, database: Any) -> dict[str, Stream]:
        tables = {INTERACTIONS: self.interactions, USERS: self.users, ITEMS: self.items}
        return {name: _stream(database, name, spec) for name, spec in tables.items() if spec}


def _stream(database: Any, name: str, spec: SqlTable) -> Stream:
    """A query as a stream. Its rows are read when the stream is."""

    @contextmanager
    def batches(between: Between | None) -> Iterator[pa.RecordBatchReader]:
        with database.cursor() as cursor:
            cursor.execute(_select(spec, between))
            yield cursor.fetch_record_batch()

    return Stream(spec, f"the query of {name}", _schema(database, spec), batches)


def _schema(database: Any, spec: SqlTable) -> pa.Schema:
    """The columns of a query. SQLite has no types: they are those of its first rows."""
    rows = _select(spec, None)
    with database.cursor() as cursor:
        try:
            return cursor.adbc_execute_schema(rows)
        except database.NotSupportedError:
            cursor.execute(f"{rows} LIMIT {SAMPLE_ROWS}")
            return cursor.fetch_record_batch().schema


def _select(spec: SqlTable, between: Between | None) -> str:
    """SQL of the database: the rows of a table that meet a condition."""
    rows = f"SELECT * FROM (\n{spec.query.strip().rstrip(';')}\n) AS log"
    if between is None:
        return rows
    column, low, high = identifier(between.column), *map(_literal, (between.low, between.high))
    return f"{rows} WHERE {column} >= {low} AND {column} < {high} OR {column} IS NULL"


def _literal(value: Any) -> str:
    if isinstance(value, datetime):
        kind = "TIMESTAMP WITH TIME ZONE" if value.tzinfo else "TIMESTAMP"
        return f"{kind} '{value.isoformat(' ')}'"
    return f"DATE '{value}'" if isinstance(value, date) else str(value)


@contextmanager
def _database(variable: str) -> Iterator[Any]:
    """A connection to the database whose address is in an environment variable."""
    address = address_in(variable)
    adbc, driver = _driver(address, variable)
    try:
        with driver.connect(_uri(address, variable)) as database:
            yield database
    except adbc.Error as error:
        raise _failure(error, variable, address) from None
    except duckdb.Error as error:
        if STREAM not in str(error):
            raise
        raise _failure(error, variable, address) from None


def _driver(address: str, variable: str) -> tuple[Any, Any]:
    """ADBC's exceptions, and the driver of an address."""
    scheme = scheme_of(address)
    if scheme not in DRIVERS:
        raise ConfigError(
            f"the address in {variable} begins with {scheme}://, which source kind 'sql' cannot"
            f" read: it reads {', '.join(sorted(set(DRIVERS)))}"
        )
    try:
        adbc = import_module("adbc_driver_manager")
        return adbc, import_module(f"adbc_driver_{DRIVERS[scheme]}.dbapi")
    except ImportError as error:
        raise ConfigError("source kind 'sql' needs the extra: pip install 'dssm[sql]'") from error


def _uri(address: str, variable: str) -> str:
    """The address as its driver reads it."""
    scheme, _, rest = address.partition("://")
    if scheme_of(address) != "sqlite":
        return f"{scheme.partition('+')[0]}://{rest}"
    file = Path(rest.removeprefix("/"))
    if not file.is_file():  # SQLite would create it
        raise ConfigError(f"the address in {variable} is no file of SQLite: write it as {SQLITE}")
    return f"{file.resolve().as_uri()}?mode=ro"


def _failure(error: Any, variable: str, address: str) -> ConfigError | ServiceError:
    """The error to raise for an error of a driver."""
    said, *_ = re.split(r"\s+Query was: |\nquery: ", without_secrets(error, address))
    message = " ".join(said.split())
    state = getattr(error, "sqlstate", None) or ""
    reached = state or REFUSED.search(message)
    if reached and not state.startswith(PASSING):
        return ConfigError(
            f"the database in {variable} refuses: {message}. Check the query, the address and the"
            " rights of its user"
        )
    return ServiceError(
        f"the database in {variable} did not do its part: {message}. Check that it runs and can be"
        " reached, then retry"
    )
