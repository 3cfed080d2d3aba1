"""External ids ↔ codes: fitted on train only, or hashed; code 0 is everything unknown."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import pandas as pd

Codes = npt.NDArray[np.int64]
HASH_KEY = "dssm-two-tower-1"  # 16 letters, part of what codes mean: another key gives other codes


class Coder(Protocol):
    """What turns values into rows of an embedding table."""

    def __len__(self) -> int:
        """How many codes there are, the unknown one included."""
        ...

    def encode(self, values: Any) -> Codes:
        """Codes of values, 0 where there is none. values: [n] → [n]."""
        ...


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

    def first(self, codes: int) -> Ids:
        """The vocabulary of the first `codes` codes, the unknown one included."""
        return Ids(self.index[: codes - 1])

    def after(self, codes: int) -> Ids:
        """The other ids, as a vocabulary of their own."""
        return Ids(self.index[codes - 1 :])

    def followed_by(self, values: pd.Series[Any]) -> Ids:
        """The vocabulary with the other non-null values behind, in the order in which they come;
        what has a code keeps it.
        """
        return Ids(
            self.index.append(pd.Index(values.dropna().unique()).difference(self.index, sort=False))
        )

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


@dataclass(frozen=True)
class Hashed:
    """No vocabulary: a value's code is its hash, 1 to `buckets`, also for values that train never
    saw (Weinberger et al. 2009).

    The hash is of the value as text, the same on every machine: 7, 7.0 and "7" are one value.
    """

    buckets: int

    def __len__(self) -> int:
        """How many codes there are, 0 (no value) included."""
        return self.buckets + 1

    def encode(self, values: Any) -> Codes:
        """Codes of values, 0 where null. values: [n] → [n]."""
        texts = as_text(values)
        held = texts.notna().to_numpy()
        codes = np.zeros(len(texts), dtype=np.int64)
        hashed = pd.util.hash_array(texts[held].to_numpy(dtype=object), hash_key=HASH_KEY)
        codes[held] = (hashed % np.uint64(self.buckets)).astype(np.int64) + 1
        return codes

    def encode_numbers(self, numbers: Codes) -> Codes:
        """Codes of whole numbers such as trigrams. [n] → [n]."""
        return np.asarray(
            (pd.util.hash_array(numbers) % np.uint64(self.buckets)).astype(np.int64) + 1
        )


def as_text(values: Any) -> pd.Series[Any]:
    """Values as text, nulls kept; whole numbers have no decimals, though a null beside them made
    them floats. [n] → [n].
    """
    series = pd.Series(values).reset_index(drop=True)
    written = series.astype(object).where(series.notna(), None).map(str, na_action="ignore")
    return written.str.replace(r"^(-?\d+)\.0+$", r"\1", regex=True)
