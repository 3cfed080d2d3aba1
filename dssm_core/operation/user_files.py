"""Files of users: those that are asked for, seeds, and the audiences that are written."""

from __future__ import annotations

import codecs
import io
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from dssm_core.columns import USER
from dssm_core.errors import DataError
from dssm_core.retrieval.requests import EXCLUDE, HISTORY

FORMULA = ("=", "+", "-", "@", "\t", "\r")  # what a spreadsheet takes for one, by its first letter
PANDAS_INDEX = "__index_level_"  # columns in which pandas stores an index without a name
SEEDS_AT_ONCE = 100_000


def read_users(file: Path, what: str, rows_at_once: int) -> Iterator[pa.Table]:
    """The rows of a Parquet or CSV file with a column user_id, or of a text file with one id a
    line, some at a time; ids are as they are there, also `NA` and missing ones.

    Text is UTF-8, or UTF-16 with a byte order mark. In a CSV file all columns are text, except
    history and exclude: lists of texts, from ids that are separated by spaces. what: what the file
    is, for messages. Raises DataError if the file cannot be read; nothing of its content is shown,
    because it may be another file than was meant.
    """
    read = READERS.get(file.suffix, _text)
    try:
        for table in read(file, rows_at_once):
            if table.column_names.count(USER) != 1:
                raise ValueError(f"no column {USER}, or several")
            if len(table):
                yield table
    except (OSError, ValueError, pa.ArrowException) as error:
        reason = error.strerror if isinstance(error, OSError) else None
        raise DataError(
            f"{what} {str(file)!r} cannot be read{f' ({reason})' if reason else ''}: give a"
            f" .parquet or .csv file with a column {USER}, and no row of more values than there are"
            " names, or a text file with one id a line, in UTF-8"
        ) from error


def read_seeds(file: Path) -> list[Any]:
    """The user ids in a file, see `read_users`."""
    tables = read_users(file, "seeds file", SEEDS_AT_ONCE)
    return [seed for table in tables for seed in table[USER].to_pylist()]


def _parquet(file: Path, rows_at_once: int) -> Iterator[pa.Table]:
    with file.open("rb") as stream, pq.ParquetFile(stream) as opened:
        names = [name for name in opened.schema_arrow.names if not name.startswith(PANDAS_INDEX)]
        for batch in opened.iter_batches(rows_at_once, columns=names):
            yield pa.Table.from_batches([batch])


def _csv(file: Path, rows_at_once: int) -> Iterator[pa.Table]:
    frames = pd.read_csv(
        file,
        dtype=str,
        keep_default_na=False,  # a user may be called NA
        na_values=[""],
        encoding=_encoding(file),
        chunksize=rows_at_once,
    )
    for frame in frames:
        if not isinstance(frame.index, pd.RangeIndex):  # pandas took the first values as an index
            raise ValueError("more values in a row than names")
        schema = pa.schema([(str(name), pa.string()) for name in frame.columns])
        table = pa.Table.from_pandas(frame, schema, preserve_index=False)
        for name in {HISTORY, EXCLUDE} & set(table.column_names):
            lists = pc.utf8_split_whitespace(pc.utf8_trim_whitespace(table[name]))
            table = table.set_column(table.column_names.index(name), name, lists)
        yield table


def _text(file: Path, rows_at_once: int) -> Iterator[pa.Table]:
    with file.open(encoding=_encoding(file)) as lines:
        ids = (line.strip() for line in lines if line.strip())
        while part := list(islice(ids, rows_at_once)):
            if any("\0" in name for name in part):
                raise ValueError("text of another encoding")
            yield pa.table({USER: pa.array(part, pa.string())})


READERS: dict[str, Callable[[Path, int], Iterator[pa.Table]]] = {".parquet": _parquet, ".csv": _csv}


def _encoding(file: Path) -> str:
    with file.open("rb") as stream:
        mark = stream.read(2)
    return "utf-16" if mark in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE) else "utf-8-sig"


def _to_parquet(frame: pd.DataFrame) -> bytes:
    buffer = io.BytesIO()
    frame.to_parquet(buffer)
    return buffer.getvalue()


def _to_csv(frame: pd.DataFrame) -> bytes:
    """Quoted where needed (csv.QUOTE_NONNUMERIC is 2): pandas leaves a carriage return as it is."""
    ids = frame[USER].map(_without_formula)
    quoting: Literal[0, 2] = 2 if ids.astype(str).str.contains("\r").any() else 0
    return frame.assign(**{USER: ids}).to_csv(index=False, quoting=quoting).encode()


def _without_formula(value: Any) -> Any:
    """A text that a spreadsheet would run as a formula, with an apostrophe before it."""
    return f"'{value}" if isinstance(value, str) and value.startswith(FORMULA) else value


WRITERS: dict[str, Callable[[pd.DataFrame], bytes]] = {".parquet": _to_parquet, ".csv": _to_csv}
