"""Vector columns: numbers of one length in a cell, scaled by what train fitted."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Self

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import torch
from pydantic import BaseModel, ConfigDict
from torch import Tensor

from dssm_core.aliases import Bools, Doubles, Floats
from dssm_core.config import Normalising
from dssm_core.errors import DataError, shorten
from dssm_core.features.normalise import SAME
from dssm_core.features.schema import TowerColumns


class VectorScale(BaseModel):
    """`standard`: (x - mean) / deviation, with the mean vector of train and one deviation of all
    its numbers, so that vectors keep their directions from the mean and their relative distances.
    `length`: x times sqrt(width) / |x|. `none`: x itself.

    One deviation for all, because a deviation for each number would make the weak last components
    of vectors from a decomposition as large as the first ones. With `standard` and `length` numbers
    are around 1. A missing vector is 0 everywhere, which is the mean with `standard`.
    """

    model_config = ConfigDict(frozen=True)
    kind: Normalising
    width: int
    mean: tuple[float, ...] = ()
    deviation: float = 1.0

    @classmethod
    def fit(cls, kind: Normalising, column: str, parts: Iterable[pd.Series[Any]]) -> Self:
        """Fit on the vectors of train. Raises DataError if there is none."""
        count = 0
        total: Doubles = np.zeros(0)
        squares = 0.0
        for part in parts:
            vectors = read_vectors(part, column, len(total) or None)[0].astype(np.float64)
            if len(vectors):
                count += len(vectors)
                total = vectors.sum(0) + (total if len(total) else 0)
                squares += float((vectors**2).sum())
        if not count:
            raise DataError(
                f"no row of the training set has a vector in {column!r}: check the column, or the"
                " ids in its file, or leave the feature out"
            )
        width = len(total)
        if kind != "standard":
            return cls(kind=kind, width=width)
        mean = total / count
        largest = np.abs(mean).max()
        deviation = float(np.sqrt(max(squares / count - float(mean @ mean), 0) / width))
        same = deviation <= SAME * largest
        return cls(
            kind=kind, width=width, mean=tuple(mean.tolist()), deviation=0.0 if same else deviation
        )

    def apply(self, values: pd.Series[Any], column: str) -> Floats:
        """Scaled vectors, zeros where a cell has none. [n] → [n, width]"""
        vectors, present = read_vectors(values, column, self.width)
        scaled: Floats = np.zeros((len(values), self.width), dtype=np.float32)
        scaled[present] = self._scaled(vectors)
        return scaled

    def _scaled(self, vectors: Floats) -> Floats:
        if self.kind == "none":
            return vectors
        if self.kind == "standard":
            centred = vectors - np.array(self.mean, dtype=np.float32)
            return centred / np.float32(self.deviation) if self.deviation else centred * 0
        length = np.linalg.norm(vectors, axis=1, keepdims=True)
        factor = np.sqrt(self.width) / np.maximum(length, np.finfo(np.float32).tiny)
        return np.asarray(vectors * factor, dtype=np.float32)


def read_vectors(values: pd.Series[Any], column: str, width: int | None) -> tuple[Floats, Bools]:
    """The vectors in the cells of a column that has lists, [p, width], and which cells have one,
    [n]. A cell without a value, or with an empty list, has none.

    width: the length of each; None takes that of the first. Raises DataError that names the row and
    both lengths, or a cell that is no list of finite numbers.
    """
    lists = _as_lists(values, column)
    lengths = pc.list_value_length(lists).fill_null(0).to_numpy()
    present: Bools = lengths > 0
    if width is None:
        width = int(lengths[present][0]) if present.any() else 0
    wrong = present & (lengths != width)
    if wrong.any():
        row = int(wrong.argmax())
        raise DataError(
            f"{column!r} of {_name(values.index[row])} has {lengths[row]} numbers, but"
            f" the vectors of this column have {width}: give vectors of one length"
        )
    flat = lists.flatten().to_numpy(zero_copy_only=False).astype(np.float32, copy=False)
    vectors = flat.reshape(-1, width) if width else flat.reshape(0, 0)
    finite = np.isfinite(vectors).all(axis=1)
    if not finite.all():
        row = int(np.flatnonzero(present)[~finite][0])
        raise DataError(
            f"{column!r} of {_name(values.index[row])} has a value that is no finite number:"
            " correct the vector, or leave it out"
        )
    return vectors, present


def _name(label: Any) -> str:
    """A row for people: its id, or its number in a request."""
    return repr(label) if isinstance(label, str) else f"row {label}"


def _as_lists(values: pd.Series[Any], column: str) -> pa.ListArray:
    """The cells as lists of float32."""
    cells = values.astype(object).where(values.notna(), None)
    try:
        return pa.array(cells, type=pa.list_(pa.float32()))
    except (pa.ArrowException, TypeError, ValueError) as error:
        raise DataError(
            f"{column!r} has a cell that is no list of numbers ({shorten(str(error))}): give a list"
            " such as [0.1, -0.2]"
        ) from error


def rows_without_vector(numbers: Tensor, columns: TowerColumns) -> int:
    """The number of rows that lack a vector of one of the columns: all its numbers are 0.

    numbers: [n, F], the numbers of the vectors first.
    """
    missing = torch.zeros(len(numbers), dtype=torch.bool)
    first = 0
    for width in columns.widths:
        missing |= ~numbers[:, first : first + width].any(1)
        first += width
    return int(missing.sum())
