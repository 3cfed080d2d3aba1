"""External ids ↔ codes: a vocabulary fitted on train, or hashing. Code 0 is any unknown value."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import pandas as pd

from dssm_core.aliases import Ints

Codes = Ints
HASH_KEY = "dssm-two-tower-1"  # 16 letters; another key gives other codes


class Coder(Protocol):
    """Maps values to rows of an embedding table."""

    def __len__(self) -> int:
        """Number of codes, code 0 included."""
        ...

    def encode(self, values: Any) -> Codes:
        """Codes of values, 0 for unknown or missing values. values: [n] → [n]"""
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
        """Number of codes, code 0 included: the rows of an embedding table."""
        return len(self.index) + 1

    def first(self, codes: int) -> Ids:
        """The vocabulary of the first `codes` codes, code 0 included."""
        return Ids(self.index[: codes - 1])

    def after(self, codes: int) -> Ids:
        """The ids after the first `codes` codes, as a separate vocabulary."""
        return Ids(self.index[codes - 1 :])

    def followed_by(self, values: pd.Series[Any]) -> Ids:
        """The vocabulary extended by new non-null values in their order; old codes stay."""
        return Ids(
            self.index.append(pd.Index(values.dropna().unique()).difference(self.index, sort=False))
        )

    def encode(self, values: Any) -> Codes:
        """Codes of external ids, 0 for unknown or null ids. values: [n] → [n]"""
        return np.asarray(self.index.get_indexer(pd.Index(values)) + 1, dtype=np.int64)

    def decode(self, codes: Codes) -> npt.NDArray[Any]:
        """External ids of codes 1 or higher. codes: [n] → [n]"""
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
    """Coding without a vocabulary: the code of a value is its hash, 1 to `buckets`, also for values
    that are not in train (Weinberger et al. 2009).

    The hash is that of the value as text, the same on every machine: 7, 7.0 and "7" are one value.
    """

    buckets: int

    def __len__(self) -> int:
        """Number of codes, code 0 (no value) included."""
        return self.buckets + 1

    def encode(self, values: Any) -> Codes:
        """Codes of values, 0 for null. values: [n] → [n]"""
        texts = as_text(values)
        present = texts.notna().to_numpy()
        codes = np.zeros(len(texts), dtype=np.int64)
        hashed = pd.util.hash_array(texts[present].to_numpy(dtype=object), hash_key=HASH_KEY)
        codes[present] = (hashed % np.uint64(self.buckets)).astype(np.int64) + 1
        return codes

    def encode_numbers(self, numbers: Codes) -> Codes:
        """Codes of integers such as trigrams. [n] → [n]"""
        return np.asarray(
            (pd.util.hash_array(numbers) % np.uint64(self.buckets)).astype(np.int64) + 1
        )


def as_text(values: Any) -> pd.Series[Any]:
    """Values as text; nulls stay null. Integers have no decimals, even if a null in the column made
    them floats. [n] → [n]
    """
    series = pd.Series(values).reset_index(drop=True)
    texts = series.astype(object).where(series.notna(), None).map(str, na_action="ignore")
    return texts.str.replace(r"^(-?\d+)\.0+$", r"\1", regex=True)
