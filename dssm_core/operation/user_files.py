"""Files of users: the seeds that are read, and the audiences that are written."""

from __future__ import annotations

import codecs
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import pandas as pd
import pyarrow.parquet as pq

from dssm_core.columns import USER
from dssm_core.errors import DataError

FORMULA = ("=", "+", "-", "@", "\t", "\r")  # what a spreadsheet takes for one, by its first letter


def read_seeds(file: Path) -> list[Any]:
    """The user ids in a Parquet or CSV file with a column user_id, or in a text file with one id a
    line; each as it is there, also `NA` and missing ones.

    Text is UTF-8, or UTF-16 with a byte order mark. Raises DataError if the file cannot be read.
    """
    try:
        if file.suffix == ".parquet":
            return _column(file)
        text = _decoded(file.read_bytes())
        if file.suffix == ".csv":
            rows = pd.read_csv(io.StringIO(text), dtype=str, usecols=[USER], keep_default_na=False)
            return list(rows[USER])
        return [line.strip() for line in text.splitlines() if line.strip()]
    except (OSError, ValueError) as error:
        raise DataError(
            f"seeds file {str(file)!r} cannot be read: give a .parquet or .csv file with a column"
            f" {USER}, or a text file with one id a line, in UTF-8"
        ) from error


def _column(file: Path) -> list[Any]:
    table = pq.ParquetFile(file).read([USER])
    if USER not in table.column_names:
        raise ValueError(f"no column {USER}")
    values: list[Any] = table[USER].to_pylist()
    return values


def _decoded(data: bytes) -> str:
    utf16 = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    text = data.decode("utf-16" if utf16 else "utf-8-sig")
    if "\0" in text:
        raise ValueError("text of another encoding")
    return text


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
