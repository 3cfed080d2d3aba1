"""The first step: the source's log as canonical Parquet tables, in time order."""

from __future__ import annotations

from pathlib import Path

from duckdb import DuckDBPyConnection, DuckDBPyRelation

from dssm_core import families
from dssm_core.columns import TIME
from dssm_core.config import Config
from dssm_core.data.comparison import parse_comparison
from dssm_core.data.database import UNREADABLE, connect, unreadable, write_table
from dssm_core.data.sources.canonical import RAW, unparsed_text
from dssm_core.data.sources.protocol import Source
from dssm_core.data.sql import identifier
from dssm_core.errors import DataError
from dssm_core.families import SOURCES
from dssm_core.runs.layout import table_file
from dssm_core.runs.manifest import Outcome
from dssm_core.runs.run import Run


def open_source(config: Config) -> Source:
    """The source that the config chooses, with its settings."""
    source: Source = families.build(SOURCES, config.data.source)
    return source


def source_files(run: Run) -> dict[str, Path]:
    """Each file the run's source reads, by path relative to `data.source.path`."""
    return open_source(run.config).files()


def ingest(run: Run, work: Path) -> Outcome:
    """Write interactions.parquet in time order (file order for ties), users.parquet and
    items.parquet if there are any.

    rows: read. Raises DataError when a file is damaged or lacks a mapped column, or when there is
    no row at all.
    """
    try:
        with connect(work) as con:
            read = _ingest(con, run.config, work)
    except UNREADABLE as error:
        raise unreadable(error) from error
    if not read:
        raise DataError("the log has no row: check data.source.path and the files in it")
    return Outcome(rows={"read": read})


def _ingest(con: DuckDBPyConnection, config: Config, work: Path) -> int:
    numbers = number_columns(config)
    tables = open_source(config).read(con)
    for name, table in (("users", tables.users), ("items", tables.items)):
        if table is not None:
            write_table(con, parse_numbers(table, numbers), work / table_file(name))
    return write_table(
        con, parse_numbers(tables.interactions, numbers), work / table_file("interactions"), TIME
    )


def number_columns(config: Config) -> set[str]:
    """The columns that must be numbers: the one that `positive` compares, and the numeric features."""
    columns = config.features.columns
    numeric = {
        feature.column
        for feature in (*columns.user, *columns.item, *columns.context)
        if feature.kind == "numeric"
    }
    return numeric | set(columns.targets()) | compared_columns(config)


def compared_columns(config: Config) -> set[str]:
    """The columns of interactions that a comparison of the config speaks of: data.positive and,
    where there is one, split.relevant.
    """
    relevant = config.split.relevant
    return {parse_comparison(text).column for text in (config.data.positive, relevant) if text}


def parse_numbers(relation: DuckDBPyRelation, numbers: set[str]) -> DuckDBPyRelation:
    """Number columns that came as text as DOUBLE, with `<column>_raw` for text that is none; the
    rest unchanged.
    """
    parts: list[str] = []
    for name, kind in zip(relation.columns, relation.types, strict=True):
        parts += (
            number_sql(name) if name in numbers and str(kind) == "VARCHAR" else [identifier(name)]
        )
    return relation.project(", ".join(parts))


def number_sql(name: str) -> list[str]:
    """SQL: a text column as finite DOUBLE, and the text of the cells that are none."""
    parsed = f"TRY_CAST({identifier(name)} AS DOUBLE)"
    value = f"CASE WHEN isfinite({parsed}) THEN {parsed} END"
    return [
        f"{value} AS {identifier(name)}",
        f"{unparsed_text(identifier(name), value)} AS {identifier(name + RAW)}",
    ]
