"""Vectors of users and items: as lists of float32 in their tables, also those from files of their
own, and what is wrong with them, by SQL.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from duckdb import DuckDBPyConnection, DuckDBPyRelation

from dssm_core.columns import INTERNAL, ITEM, ITEMS, ROW, USER, USERS
from dssm_core.config import Config, Feature, FeatureColumns
from dssm_core.data.database import one_row
from dssm_core.data.sources.ids import id_text
from dssm_core.data.sql import folded, identifier, parquet
from dssm_core.errors import DataError, shorten
from dssm_core.families import did_you_mean

LIST = "FLOAT[]"
ARROW_LIST = "list<element: float>"  # the type of LIST in a Parquet file
NUMBERS = (
    *("TINYINT", "SMALLINT", "INTEGER", "BIGINT", "HUGEINT", "FLOAT", "DOUBLE", "DECIMAL"),
    *("UTINYINT", "USMALLINT", "UINTEGER", "UBIGINT", "UHUGEINT", "VARCHAR"),
)  # types of the values in a list
BRACKETS = "' []()\t\n\r'"  # around the numbers of a vector in text
BETWEEN = r"'[\s,;|]+'"  # the numbers of a vector in text
NUMBERS_AT_ONCE = 4_000_000  # of an array that is read: 16 MB
ID = f"{INTERNAL}id"
VECTOR = f"{INTERNAL}vector"
SIDES = {USERS: ("user", USER), ITEMS: ("item", ITEM)}


def vector_files(columns: FeatureColumns) -> dict[str, Path]:
    """Each file of vectors and of their ids, by its path in the config. Raises DataError if one
    does not exist.
    """
    vectors = [*columns.vectors("user"), *columns.vectors("item")]
    names = [name for vector in vectors for name in (vector.file, vector.ids) if name]
    files = {name: Path(name).expanduser() for name in names}
    for name, file in files.items():
        if not file.is_file():
            raise DataError(
                f"there is no file {name!r}, which features.columns names as a file of vectors:"
                " give a path from the working directory, or an absolute one"
            )
    return files


def with_vectors(
    con: DuckDBPyConnection, config: Config, table: str, rows: DuckDBPyRelation | None, log: Path
) -> DuckDBPyRelation | None:
    """The users or items with each vector column as LIST, NULL where there is no vector. Text is
    split at separators and blanks. A column of another type is left as it is.

    rows: None if the source has no such table. If a file has vectors, the ids of these files and of
    the log are the table then. log: the Parquet file of interactions.
    """
    side, key = SIDES[table]
    vectors = config.features.columns.vectors(side)
    files = {of.column: _file(con, of, key) for of in vectors if of.file is not None}
    if rows is None and files:
        ids = [f"SELECT {ID} AS {key} FROM ({file})" for file in files.values()]
        clicked = f"SELECT {key} FROM {parquet(log)} WHERE {key} IS NOT NULL"
        rows = con.sql(" UNION ".join([clicked, *ids])).order(key)
    if rows is None:
        return None
    for feature in vectors:
        if feature.column in files:
            rows = _joined(con, feature, table, files[feature.column], rows)
        types = dict(zip(rows.columns, map(str, rows.types), strict=True))
        value = _list_sql(feature.column, types.get(feature.column, ""))
        if value:
            rows = rows.project(f"* REPLACE ({value} AS {identifier(feature.column)})")
    return rows


def _list_sql(column: str, kind: str) -> str | None:
    """SQL: a column as LIST; None if its type has no numbers in a row."""
    name = identifier(column)
    inner, bracket, rest = kind.partition("[")
    if kind == "VARCHAR":
        parts = f"string_split_regex(nullif(trim({name}, {BRACKETS}), ''), {BETWEEN})"
        return f"TRY_CAST({parts} AS {LIST})"
    if not bracket or "[" in rest or not inner.startswith(NUMBERS):
        return None
    return f"CASE WHEN len(CAST({name} AS {inner}[])) > 0 THEN TRY_CAST({name} AS {LIST}) END"


def _file(con: DuckDBPyConnection, feature: Feature, key: str) -> str:
    """SQL: ID and VECTOR of the rows of a file. Raises DataError unless each has an id of its
    own.
    """
    rows = _array(con, feature) if feature.ids else _table(con, feature, key)
    _check_unique(con, feature, rows)
    return rows


def _joined(
    con: DuckDBPyConnection, feature: Feature, table: str, file: str, rows: DuckDBPyRelation
) -> DuckDBPyRelation:
    """The rows, in their order, with the vectors of a file as a column, NULL for ids that the file
    lacks.
    """
    _, key = SIDES[table]
    if folded(feature.column) in map(folded, rows.columns):
        raise DataError(
            f"{table} have a column {feature.column!r}, and features.columns names the file"
            f" {feature.file!r} for it: leave `file` out, or take another name for the feature"
        )
    name = f"{INTERNAL}{table}_without_{feature.column}"
    rows.create_view(name, replace=True)
    own = f"SELECT *, row_number() OVER () AS {ROW} FROM {identifier(name)}"
    joined = con.sql(
        f"SELECT own.*, vectors.{VECTOR} AS {identifier(feature.column)} FROM ({own}) AS own"
        f" LEFT JOIN ({file}) AS vectors ON own.{key} = vectors.{ID} ORDER BY own.{ROW}"
    )
    return joined.project(f"* EXCLUDE {ROW}")


def _table(con: DuckDBPyConnection, feature: Feature, key: str) -> str:
    """SQL: ID and VECTOR of the rows of a Parquet file."""
    source = parquet(Path(str(feature.file)).expanduser())
    sample = con.sql(f"SELECT * FROM {source} LIMIT 0")
    types = dict(zip(sample.columns, map(str, sample.types), strict=True))
    for column in (key, feature.column):
        if column not in types:
            raise DataError(
                f"the file of vectors {feature.file!r} has no column {column!r}: it needs the ids"
                f" as {key!r} and the vectors as {feature.column!r};"
                f" {did_you_mean(column, list(types))}"
            )
    ids = id_text(identifier(key), types[key])
    return f"SELECT {ids} AS {ID}, {identifier(feature.column)} AS {VECTOR} FROM {source}"


def _array(con: DuckDBPyConnection, feature: Feature) -> str:
    """SQL: ID and VECTOR of the rows of an array, which is read from the disk a part at a time."""
    file = str(feature.file)
    vectors = _read_array(file)
    if vectors.ndim != 2 or vectors.dtype.kind not in "fiu":
        raise DataError(
            f"{file!r} has an array of {vectors.dtype} with shape {vectors.shape}: it must have"
            " numbers, a vector in each row [N, D]"
        )
    ids = _ids(con, str(feature.ids))
    if len(ids) != len(vectors):
        raise DataError(
            f"{file!r} has {len(vectors):,} vectors, and {feature.ids!r} {len(ids):,} ids: give the"
            " id of each vector, in the same order"
        )
    schema = pa.schema([(ID, pa.string()), (VECTOR, pa.list_(pa.float32()))])
    reader = pa.RecordBatchReader.from_batches(schema, _batches(schema, ids, vectors))
    name = f"{INTERNAL}array_{feature.column}"
    con.register(name, reader)
    con.execute(
        f"CREATE OR REPLACE TEMP TABLE {identifier(name + '_rows')} AS FROM {identifier(name)}"
    )
    con.unregister(name)
    return f"FROM {identifier(name + '_rows')}"


def _batches(
    schema: pa.Schema, ids: pa.Array, vectors: npt.NDArray[Any]
) -> Iterator[pa.RecordBatch]:
    width = vectors.shape[1]
    size = max(1, NUMBERS_AT_ONCE // max(1, width))
    for first in range(0, len(vectors), size):
        with np.errstate(over="ignore"):  # infinity is refused later, with the id
            part = np.ascontiguousarray(vectors[first : first + size], dtype=np.float32)
        offsets = pa.array(np.arange(len(part) + 1, dtype=np.int32) * width)
        lists = pa.ListArray.from_arrays(offsets, pa.array(part.reshape(-1)))
        yield pa.RecordBatch.from_arrays([ids.slice(first, len(part)), lists], schema=schema)


def _read_array(file: str) -> npt.NDArray[Any]:
    """The array in a .npy file, mapped into memory; never unpickled."""
    try:
        array: npt.NDArray[Any] = np.load(
            Path(file).expanduser(), mmap_mode="r", allow_pickle=False
        )
    except (OSError, ValueError) as error:
        raise DataError(
            f"{file!r} cannot be read as an array ({shorten(str(error))}): write it with"
            " numpy.save, as numbers or text and not as objects"
        ) from error
    return array


def _ids(con: DuckDBPyConnection, file: str) -> pa.Array:
    """The ids in a file, as text."""
    path = Path(file).expanduser()
    if path.suffix == ".npy":
        array = _read_array(file)
        if array.ndim != 1:
            raise DataError(
                f"{file!r} has ids with shape {array.shape}: it must have one dimension"
            )
        raw = pa.table({ID: pa.array(array)})
    elif path.suffix == ".parquet":
        raw = con.sql(f"FROM {parquet(path)}").to_arrow_table()
        if raw.num_columns != 1:
            raise DataError(
                f"{file!r} has the columns {shorten(raw.column_names)}: a file of ids must have one"
                " column"
            )
        raw = raw.rename_columns([ID])
    else:
        raw = pa.table({ID: pa.array(_lines(path), pa.string())})
    con.register(f"{INTERNAL}ids", raw)
    kind = str(con.sql(f"FROM {INTERNAL}ids LIMIT 0").types[0])
    texts = con.sql(f"SELECT {id_text(ID, kind)} AS {ID} FROM {INTERNAL}ids").to_arrow_table()
    con.unregister(f"{INTERNAL}ids")
    return texts[ID].combine_chunks().cast(pa.string())


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8-sig").removesuffix("\n").split("\n")
    except UnicodeError as error:
        raise DataError(f"{str(path)!r} is not UTF-8: write one id a line in UTF-8") from error


def _check_unique(con: DuckDBPyConnection, feature: Feature, of: str) -> None:
    """DataError if a file has a row without an id, or an id twice."""
    missing, repeated, example = one_row(
        con,
        f"SELECT sum(n) FILTER ({ID} IS NULL), count(*) FILTER ({ID} IS NOT NULL AND n > 1),"
        f" min({ID}) FILTER ({ID} IS NOT NULL AND n > 1)"
        f" FROM (SELECT {ID}, count(*) AS n FROM ({of}) GROUP BY {ID})",
    )
    where = feature.ids or feature.file
    if missing:
        raise DataError(f"{missing:,} rows of {where!r} have no id: give an id for each vector")
    if repeated:
        raise DataError(
            f"{repeated:,} ids are in {where!r} more than once (for example {example!r}): keep one"
            " vector for each id"
        )


def has_vector_sql(column: str, key: str, file: Path) -> str:
    """SQL: true if a row has a vector, else NULL."""
    return f"CASE WHEN {identifier(column)} IS NOT NULL THEN true END"


def wrong_vector_sql(column: str, key: str, file: Path) -> str:
    """SQL: the id of a row, and what is wrong with its vector: its length is not that of the first
    vector in the table, or a value is no finite number. NULL for other rows.
    """
    name = identifier(column)
    first = f"(SELECT len({name}) FROM {parquet(file)} WHERE {name} IS NOT NULL LIMIT 1)"
    # NaN and infinity remain in a sum, and list_count leaves out NULL.
    finite = f"(list_count({name}) = len({name}) AND isfinite(list_sum({name})))"
    return (
        f"CASE WHEN len({name}) <> {first} THEN"
        f" concat({key}, ': ', len({name}), ' numbers, the first vector has ', {first})"
        f" WHEN NOT {finite} THEN concat({key}, ': a value that is no finite number') END"
    )
