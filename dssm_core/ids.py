"""External ids ↔ codes: fitted on train only, code 0 is everything unknown."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

Codes = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Ids:
    """A vocabulary: the id at position r of `index` has code r + 1."""

    index: pd.Index[Any]

    @classmethod
    def fit(cls, values: pd.Series[Any]) -> Ids:
        """The distinct non-null values, sorted so that equal data gives equal codes."""
        return cls(pd.Index(values.dropna().unique()).sort_values())

    def __len__(self) -> int:
        """How many codes there are, the unknown one included: the rows of an embedding table."""
        return len(self.index) + 1

    def encode(self, values: Any) -> Codes:
        """Codes of external ids, 0 where unknown or null. values: [n] → [n]."""
        return np.asarray(self.index.get_indexer(pd.Index(values)) + 1, dtype=np.int64)

    def decode(self, codes: Codes) -> npt.NDArray[Any]:
        """External ids of known codes (1 or more). codes: [n] → [n]."""
        return np.asarray(self.index.to_numpy()[np.asarray(codes) - 1])

    def save(self, file: Path, column: str) -> None:
        """Write as a Parquet file of one column, row r holding code r + 1."""
        self.index.to_frame(index=False, name=column).to_parquet(file)

    @classmethod
    def load(cls, file: Path) -> Ids:
        """Read what `save` wrote."""
        return cls(pd.Index(pd.read_parquet(file).iloc[:, 0]))
