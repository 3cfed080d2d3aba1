"""External ids ↔ codes: a vocabulary fitted on train, or hashing. Code 0 is any unknown value."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from dssm_core.aliases import Ints
from dssm_core.features.ragged import positions

Codes = Ints
KEYS_AT_ONCE = 1_000_000  # ids that are hashed at a time: some hundred MB of Python strings
MAX_INT64 = 2**63 - 1
DIGITS = 19  # of MAX_INT64; int(Decimal("1e999999999")) would take all memory
ID_DECIMALS = re.compile(r"^(0|-?[1-9]\d*)\.0$")  # as `ingest_data` reads ids; 007.0 is no number
WHOLE_NUMBER = re.compile(r"^(0|-?[1-9][0-9]*)$")
WHOLE_DECIMALS = re.compile(r"^(-?\d+)\.0+$")
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
class Lookup:
    """Finds a few ids among many without a hash table of all of them.

    keys: [N] uint64, ascending: an integer id itself, the 64-bit hash of a text id. codes: [N], the
    code of each. Both may lie on disk.
    """

    keys: npt.NDArray[np.uint64]
    codes: npt.NDArray[np.uint64]

    @classmethod
    def of(cls, index: pd.Index[Any]) -> Lookup:
        """Build from the ids in the order of their codes."""
        parts = [
            _keys(index[first : first + KEYS_AT_ONCE])
            for first in range(0, len(index), KEYS_AT_ONCE)
        ]
        keys = np.concatenate([np.zeros(0, np.uint64), *parts])
        order = np.argsort(keys, kind="stable")
        return cls(keys[order], order.astype(np.uint64) + np.uint64(1))

    @classmethod
    def load(cls, file: Path) -> Lookup:
        """Map what `save` wrote into memory."""
        keys, codes = np.load(file, mmap_mode="r", allow_pickle=False)
        return cls(keys, codes)

    def save(self, file: Path) -> None:
        """Write as one array [2, N]."""
        np.save(file, np.stack([self.keys, self.codes]))

    def candidates(self, keys: npt.NDArray[np.uint64]) -> tuple[Ints, Codes]:
        """Ids with each of `keys` [n]: position in `keys` [m] and code [m].

        Of text ids there may be more than one: two ids can have the same hash.
        """
        begin = np.searchsorted(self.keys, keys, side="left")
        counts = np.searchsorted(self.keys, keys, side="right") - begin
        position = np.repeat(np.arange(len(keys)), counts)
        rows = np.repeat(begin, counts) + positions(counts)
        return position, self.codes[rows].astype(np.int64)


@dataclass(frozen=True)
class Ids:
    """A vocabulary: the id at position r of `index` has code r + 1.

    stored: the lookup that was saved with it.
    """

    index: pd.Index[Any]
    stored: Lookup | None = field(default=None, repr=False, compare=False)

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

    @cached_property
    def lookup(self) -> Lookup:
        """Finds single ids: as it was saved, else built now."""
        return self.stored or Lookup.of(self.index)

    @cached_property
    def _arrow(self) -> Any:
        """The ids as Arrow has them: pandas takes single values ten times slower."""
        array = pa.array(self.index)
        return array.combine_chunks() if isinstance(array, pa.ChunkedArray) else array

    @cached_property
    def whole_numbers(self) -> bool:
        """Whether all ids are whole numbers, which answers then hold as integers, although a log's
        ids are read as text; 007 and numbers beyond int64 are text.
        """
        if self._is_integer or not len(self.index):
            return self._is_integer
        try:
            self._arrow.cast(pa.int64())
        except pa.ArrowInvalid:  # not a number, or too large
            return False
        plain = pc.match_substring_regex(self._arrow, WHOLE_NUMBER.pattern)
        return bool(pc.all(plain).as_py())

    @property
    def _is_integer(self) -> bool:
        return pd.api.types.is_integer_dtype(self.index.dtype)

    def find(self, values: Sequence[Any]) -> Codes:
        """As `encode`, for a few values in the form of `canonical_ids`.

        The time does not depend on the number of ids. values: n → [n]
        """
        codes = np.zeros(len(values), dtype=np.int64)
        present = np.array([i for i, value in enumerate(values) if value is not None], np.int64)
        if not len(present):
            return codes
        form = int if self._is_integer else str
        asked = [form(values[i]) for i in present.tolist()]
        wanted = np.array(asked, dtype=np.int64 if self._is_integer else object)
        position, found = self.lookup.candidates(_keys(wanted))
        same = self._stored(found) == wanted[position]
        codes[present[position[same]]] = found[same]
        return codes

    def decode(self, codes: Codes) -> npt.NDArray[Any]:
        """External ids of codes 1 or higher: int64 if `whole_numbers`, else text. [n] → [n]"""
        ids = self._stored(codes)
        return ids.astype(np.int64) if self.whole_numbers else ids

    def _stored(self, codes: Codes) -> npt.NDArray[Any]:
        """The ids of codes 1 or higher as the index has them. [n] → [n]"""
        rows = np.asarray(codes, dtype=np.int64) - 1
        if self._is_integer:
            return np.asarray(self.index.to_numpy()[rows])
        return np.asarray(self._arrow.take(pa.array(rows)).to_numpy(zero_copy_only=False))

    def save(self, file: Path, column: str, lookup: bool = False) -> None:
        """Write as a Parquet file of one column, row r holding code r + 1.

        lookup: write the lookup beside it, so that a server need not build it.
        """
        self.index.to_frame(index=False, name=column).to_parquet(file)
        if lookup:
            self.lookup.save(lookup_file(file))

    @classmethod
    def load(cls, file: Path) -> Ids:
        """Read what `save` wrote."""
        beside = lookup_file(file)
        stored = Lookup.load(beside) if beside.is_file() else None
        # In one chunk: Arrow takes single values out of many chunks a thousand times slower.
        table = pq.read_table(file, partitioning=None).combine_chunks()
        return cls(pd.Index(table.to_pandas().iloc[:, 0]), stored)


def lookup_file(file: Path) -> Path:
    """The lookup of an id file."""
    return file.with_suffix(".lookup.npy")


def canonical_ids(values: Sequence[Any], whole_numbers: bool) -> list[Any]:
    """Ids as the vocabulary has them, whatever type a client sends: 7, 7.0, "7" and "7.000" are one
    whole number; in a text vocabulary 7 and 7.0 are "7".

    A value that is no id (null, or not a whole number where ids are) becomes None. n → n
    """
    convert = _whole_number if whole_numbers else _text
    return [convert(value) for value in values]


def _whole_number(value: Any) -> int | None:
    if type(value) is not int:
        try:
            exact = Decimal(str(value))
            value = int(exact) if exact.adjusted() < DIGITS else None
        except (ArithmeticError, ValueError):  # no number, NaN, infinity
            return None
        if value != exact:
            return None
    return value if value is not None and abs(value) <= MAX_INT64 else None


def _text(value: Any) -> str | None:
    if isinstance(value, str):
        return ID_DECIMALS.sub(r"\1", value.strip(" ")) or None
    if pd.isna(value):
        return None
    return WHOLE_DECIMALS.sub(r"\1", str(value))


def _keys(values: Any) -> npt.NDArray[np.uint64]:
    """The 64-bit key of each id. [n] → [n]"""
    if pd.api.types.is_integer_dtype(values.dtype):
        return np.asarray(values, dtype=np.int64).view(np.uint64)
    texts = np.asarray(values, dtype=object)
    return np.asarray(pd.util.hash_array(texts, hash_key=HASH_KEY, categorize=False))


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
    """Values as text; nulls stay null. Equal numbers have one text, whatever their type: 7, 7.0 and
    "7" are "7", and decimals have no zeros at their end. [n] → [n]
    """
    series = pd.Series(values).reset_index(drop=True)
    if series.dtype.kind in "iub" or isinstance(series.dtype, pd.StringDtype):
        codes, distinct = pd.factorize(series)  # the text of each value once
        texts = _as_text(pd.Series(distinct))
        return pd.Series(texts.array.take(codes, allow_fill=True))
    return _as_text(series)


def _as_text(series: pd.Series[Any]) -> pd.Series[Any]:
    if series.dtype == np.float32:  # 0.1 of 32 bits is not 0.1 of 64 bits, but its text is
        series = series.astype(str).astype(np.float64)
    texts = series.astype(object).where(series.notna(), None).map(_plain_text, na_action="ignore")
    return texts.str.replace(WHOLE_DECIMALS, r"\1", regex=True)


def _plain_text(value: Any) -> str:
    return format(value.normalize(), "f") if isinstance(value, Decimal) else str(value)
