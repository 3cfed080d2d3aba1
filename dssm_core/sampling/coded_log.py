"""The train part as codes: ids are fitted and joined by SQL, and the coded rows are written into a
file that is mapped into memory, a part at a time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from duckdb import DuckDBPyConnection
from torch import Tensor

from dssm_core.columns import IMPRESSION, ITEM, LABEL, ROW, TIME, USER
from dssm_core.config import Features, Resources, Weight
from dssm_core.data.database import one_row, write_parquet
from dssm_core.data.sql import identifier, numbered_rows, parquet
from dssm_core.data.weights import weight_sql
from dssm_core.errors import ConfigError
from dssm_core.features.code_rows import load_code_rows, write_code_rows
from dssm_core.features.dataset import availability, creation_times, first_known_times
from dssm_core.features.ids import Ids
from dssm_core.features.interactions import Interactions
from dssm_core.features.ordered_rows import OrderedRows
from dssm_core.features.schema import Column
from dssm_core.features.tables import check_columns, fit_context
from dssm_core.features.tensors import create_tensors, from_named
from dssm_core.runs.layout import CODE_ROWS_FILE, LOG_FILE
from dssm_core.runs.memory import GIB, SHARE_OF_DUCKDB, Memory, require
from dssm_core.sampling.coded_prior import fill_prior, open_prior, write_prior

BYTES_A_ROW = 100  # of coded rows while they are sorted
BYTES_A_TABLE_ROW = 1000  # of users or items while they are coded
BYTES_A_VECTOR_NUMBER = 24  # of vectors while they are coded
VECTOR_COPIES = 2  # of all vectors while their file is written
BYTES_AN_ID = 250  # what an id takes until the step ends, with its columns
BYTES_OF_LIBRARIES = 300 * 2**20
CODES = ("user", "item", "time")  # columns of the coded rows, before those of the context
OPTIONAL = ("weight", "impression")  # columns of some logs, after the codes


def open_train(
    con: DuckDBPyConnection, train: Path, catalogue: Path | None, histories: Path | None = None
) -> None:
    """Create the views `train` (numbered rows); `listed`, the positives whose item is in the items
    table `catalogue`, if there is one; and `prior`, the items that users with a row had before the
    log, as the file `histories` says, if there is one.
    """
    con.execute(f"CREATE VIEW train AS {numbered_rows(train)}")
    listed = f"SELECT * FROM train WHERE {LABEL} = 1"
    if catalogue:
        listed += f" AND {ITEM} IN (SELECT {ITEM} FROM {parquet(catalogue)})"
    con.execute(f"CREATE VIEW listed AS {listed}")
    open_prior(con, histories)


def code_impressions(con: DuckDBPyConnection) -> int:
    """Create the table `impressions` of what was shown to a user together, with codes from 1 on in
    the order of the log, for impressions that hold both a positive and a row of label 0. Returns
    their number.

    A user and an `impression_id` make an impression: an id of two users is two impressions.
    """
    held = IMPRESSION in con.table("train").columns
    name = f"nullif(trim(CAST({IMPRESSION} AS VARCHAR)), '')" if held else "NULL"
    con.execute(
        f"CREATE TABLE impressions AS SELECT {USER}, {name} AS {IMPRESSION},"
        f" row_number() OVER (ORDER BY min({ROW})) AS code FROM train WHERE {name} IS NOT NULL"
        f" GROUP BY 1, 2 HAVING count(DISTINCT {LABEL}) = 2"
    )
    (number,) = one_row(con, "SELECT count(*) FROM impressions")
    return int(number)


def fit_ids(
    con: DuckDBPyConnection, catalogue: Path | None, listed_first: bool = False
) -> dict[str, Ids]:
    """The ids of users and items, in order, by column. Creates a table for each, `user_ids` and
    `item_ids`, with their codes. A user has a positive, or had an item before the log that a
    history can show.

    listed_first: items without a row in `listed`, whose ids cannot be trained, come after all
    others, so that the table of id embeddings ends before them.
    """
    items = parquet(catalogue) if catalogue else "listed"
    shown = "listed" if listed_first else items  # items that a history can show
    by_prior = f"SELECT {USER} FROM prior WHERE {ITEM} IN (SELECT {ITEM} FROM {shown})"
    sources = {USER: f"(SELECT {USER} FROM listed UNION {by_prior})", ITEM: items}
    untrained = f"{ITEM} NOT IN (SELECT {ITEM} FROM listed)"
    order = {USER: USER, ITEM: f"{untrained}, {ITEM}" if listed_first else ITEM}
    ids = {}
    for column, source in sources.items():
        distinct = f"SELECT DISTINCT {column} FROM {source} WHERE {column} IS NOT NULL"
        con.execute(
            f"CREATE TABLE {column}s AS SELECT {column}, row_number() OVER () AS code"
            f" FROM (SELECT {column} FROM ({distinct}) ORDER BY {order[column]})"
        )
        rows = con.sql(f"SELECT {column} FROM {column}s ORDER BY code").to_arrow_table()
        ids[column] = Ids(pd.Index(rows.to_pandas()[column], name=None).rename(None))
    return ids


def order_rows(
    con: DuckDBPyConnection,
    features: Features,
    side: str,
    table: Path | None,
    scratch: Path,
    memory: Memory,
) -> OrderedRows:
    """The rows of the users or items table (`side`) in the order of the ids, with the columns that
    the features need. table: its file, if there is one.
    """
    key = f"{side}_id"
    held = [name for name in pq.read_schema(table).names if name != key] if table else None
    names = check_columns(getattr(features.columns, side), side, held)
    columns = [f"ids.code AS {ROW}", *(f"log.{identifier(name)}" for name in names)]
    rows = f"LEFT JOIN {parquet(table)} AS log USING ({key})" if table else ""
    query = f"SELECT {', '.join(columns)} FROM {key}s AS ids {rows} ORDER BY ids.code"
    file = scratch / f"{side}s.parquet"
    n = write_parquet(con, query, file)
    width = sum(_width(con, feature.column, file) for feature in features.columns.vectors(side))
    _check_vectors(side, n, width, memory)
    return OrderedRows(file, memory.rows(BYTES_A_TABLE_ROW + BYTES_A_VECTOR_NUMBER * width))


def _width(con: DuckDBPyConnection, column: str, file: Path) -> int:
    """The length of the first vector of a column, 0 if it has none."""
    name = identifier(column)
    first = f"SELECT len({name}) FROM {parquet(file)} WHERE {name} IS NOT NULL LIMIT 1"
    return int(one_row(con, f"SELECT coalesce(({first}), 0)")[0])


def _check_vectors(side: str, rows: int, width: int, memory: Memory) -> None:
    """ConfigError if the vectors of users or items (`side`) do not fit beside what DuckDB gets."""
    held = VECTOR_COPIES * rows * width * 4
    if held > memory.total * (1 - SHARE_OF_DUCKDB):
        raise ConfigError(
            f"the vectors of {rows:,} {side}s with {width:,} numbers each need {VECTOR_COPIES} x"
            f" {rows * width * 4 / GIB:.3g} GiB while they are written, more than"
            f" {1 - SHARE_OF_DUCKDB:.0%} of the {memory.total / GIB:.3g} GiB that a step plans"
            " with: raise resources.memory_gib, or take shorter vectors"
        )


def code_context(
    con: DuckDBPyConnection, features: Features, work: Path, scratch: Path
) -> list[Column]:
    """Fit the context columns on their distinct values. Creates the table `context_N` (value, code)
    for the N-th of them.
    """
    names = [feature.column for feature in features.columns.context]
    files = [scratch / f"context_{number}.parquet" for number in range(len(names))]
    for name, file in zip(names, files, strict=True):
        write_parquet(con, f"SELECT DISTINCT {identifier(name)} AS value FROM listed", file)
    values = {name: pd.read_parquet(file)["value"] for name, file in zip(names, files, strict=True)}
    codes, columns = fit_context(features, values, work)
    for number, (file, code) in enumerate(zip(files, codes, strict=True)):
        con.register("codes", pa.table({ROW: np.arange(len(code)), "code": code}))
        con.execute(
            f"CREATE TABLE context_{number} AS SELECT value, code"
            f" FROM ({numbered_rows(file)}) JOIN codes USING ({ROW})"
        )
    return columns


def write_log(
    con: DuckDBPyConnection,
    features: Features,
    ids: dict[str, Ids],
    items: pd.DataFrame | None,
    window: tuple[int, int],
    work: Path,
    scratch: Path,
    memory: Memory,
    weight: Weight | None = None,
) -> Interactions:
    """Write the coded log, and its rows by user and by item, into `work`. Returns it mapped into
    memory.

    items: the times of the items table, if there is one. window: start and end, ms. weight: the
    weights of positives, if they have any.
    """
    rows_at_once = memory.rows(BYTES_A_ROW)
    context = [feature.column for feature in features.columns.context]
    positives = scratch / "positives.parquet"
    impressions = code_impressions(con) > 0
    n = write_parquet(con, _coded("listed", context, weight, impressions), positives)
    shown = scratch / "shown.parquet"
    not_taken = f"(SELECT * FROM train WHERE {LABEL} = 0)"
    m = write_parquet(con, _coded(not_taken, [], impressions=impressions), shown)
    whole = {"created": creation_times(items, ids[ITEM]), "window": torch.tensor(window)}
    whole |= availability(items, ids[ITEM])
    prior = scratch / "prior.parquet"
    p = write_prior(con, prior)
    optional = ("available_from", "available_until", *OPTIONAL, "shown_impression")
    shapes: dict[str, tuple[int, ...]] = dict.fromkeys(optional, (0,))
    shapes |= {name: values.shape for name, values in whole.items()}
    shapes |= dict.fromkeys(CODES, (n,)) | {f"shown_{name}": (m,) for name in CODES}
    shapes["context"] = (n, len(context))
    if weight:
        shapes["weight"] = (n,)
    if impressions:
        shapes |= {"impression": (n,), "shown_impression": (m,)}
    shapes |= {"prior.item": (p,), "prior.ptr": (len(ids[USER]) + 1,) if p else (0,)}
    named = {f"log.{name}": (torch.int64, shape) for name, shape in shapes.items()}
    named["log.weight"] = (torch.float32, shapes["weight"])
    parts = create_tensors(work / LOG_FILE, named)
    _fill(parts, "log.", positives, rows_at_once)
    _fill(parts, "log.shown_", shown, rows_at_once)
    if p:
        fill_prior(parts, prior, rows_at_once)
    for name, values in whole.items():
        parts[f"log.{name}"].copy_(values)
    end = torch.full((len(ids[ITEM]),), window[1])
    created = first_known_times(end, parts["log.item"], parts["log.time"], whole["created"])
    parts["log.created"].copy_(created)
    log: Interactions = from_named(Interactions, "log", parts)
    codes = {"user": log.user, "item": log.item}
    write_code_rows(work / CODE_ROWS_FILE, log.time, codes, rows_at_once)
    by_user, by_item = load_code_rows(work / CODE_ROWS_FILE, *codes)
    return replace(log, by_user=by_user, by_item=by_item)


def check_memory(resources: Resources, ids: dict[str, Ids]) -> None:
    """ConfigError if the ids do not fit beside what DuckDB gets."""
    number = sum(len(vocabulary.index) for vocabulary in ids.values())
    beside_duckdb = BYTES_OF_LIBRARIES + number * BYTES_AN_ID
    require(resources, int(beside_duckdb / (1 - SHARE_OF_DUCKDB)), f"{number:,} users and items")


def unlisted(con: DuckDBPyConnection, listed: int) -> int:
    """Number of positives that are not among the `listed` ones."""
    (positives,) = one_row(con, f"SELECT count(*) FROM train WHERE {LABEL} = 1")
    return int(positives) - listed


def _coded(
    rows: str, context: Sequence[str], weight: Weight | None = None, impressions: bool = False
) -> str:
    """SQL: user, item, time and context codes of rows whose user and item have a code, in order,
    and the columns `weight` if there are weights and `impression` if there are impressions.
    """
    selected = ["user_ids.code AS user", "item_ids.code AS item", f"log.{TIME} AS time"]
    joined = [f"{rows} AS log JOIN user_ids USING ({USER}) JOIN item_ids USING ({ITEM})"]
    for number, name in enumerate(context):
        table = f"context_{number}"
        selected.append(f"{table}.code AS {table}")
        same = f"log.{identifier(name)} IS NOT DISTINCT FROM {table}.value"
        joined.append(f"JOIN {table} ON {same}")
    if weight:
        selected.append(f"{weight_sql(weight, 'log.')} AS weight")
    if impressions:
        selected.append("coalesce(impressions.code, 0) AS impression")
        same = f"trim(CAST(log.{IMPRESSION} AS VARCHAR)) = impressions.{IMPRESSION}"
        joined.append(f"LEFT JOIN impressions ON log.{USER} = impressions.{USER} AND {same}")
    return f"SELECT {', '.join(selected)} FROM {' '.join(joined)} ORDER BY log.{ROW}"


def _fill(parts: dict[str, Tensor], prefix: str, coded: Path, rows_at_once: int) -> None:
    """Copy coded rows from a Parquet file into the tensors of a log."""
    first = 0
    for batch in pq.ParquetFile(coded).iter_batches(rows_at_once):
        rows = slice(first, first + len(batch))
        columns = {
            name: torch.from_numpy(column.to_numpy().copy())
            for name, column in zip(batch.schema.names, batch.columns, strict=True)
        }
        for name in (*CODES, *OPTIONAL):
            if name in columns:
                parts[prefix + name][rows] = columns.pop(name)
        for number, values in enumerate(columns.values()):
            parts["log.context"][rows, number] = values
        first += len(batch)
