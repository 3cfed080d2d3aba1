"""The rows of a users or items table in the order of the ids, a part at a time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.parquet as pq


@dataclass(frozen=True)
class OrderedRows:
    """The rows of a Parquet file that has a row for each id, in their order. It can be read several
    times. rows_at_once: rows of a frame.
    """

    file: Path
    rows_at_once: int

    @property
    def columns(self) -> list[str]:
        """The names of the columns."""
        return list(pq.read_schema(self.file).names)

    def __iter__(self) -> Iterator[pd.DataFrame]:
        return self._parts(None)

    def values(self, column: str) -> Iterator[pd.Series[Any]]:
        """One column, a part at a time. The others are not read."""
        return (part[column] for part in self._parts([column]))

    def _parts(self, columns: list[str] | None) -> Iterator[pd.DataFrame]:
        for batch in pq.ParquetFile(self.file).iter_batches(self.rows_at_once, columns=columns):
            yield batch.to_pandas()
