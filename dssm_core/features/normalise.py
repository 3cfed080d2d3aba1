"""Scaling of numeric features: fitted on train, stored as JSON, applied to any row."""

from __future__ import annotations

from typing import Any, Self

import numpy as np
import numpy.typing as npt
import pandas as pd
from pydantic import BaseModel, ConfigDict

from dssm_core.aliases import Floats
from dssm_core.config import Normalising

POINTS = 1_001  # of the distribution that `rank` keeps
SAME = 1e-9  # deviation over mean of numbers that are one number with errors of rounding
LARGEST = float(np.finfo(np.float32).max)  # larger numbers, such as DBL_MAX, mark missing values


class Normaliser(BaseModel):
    """`standard`: (x - mean) / deviation. `log`: the same of sign(x) * log(1 + |x|), for counts and
    prices.

    `rank`: the share of train below x, ties counted half, from -1 to 1, for any distribution.
    `none`: x itself.
    Numbers that are not finite as float32 count as missing, which is 0. Every number is 0 if those
    of train are all the same: there is no scale for another one.
    values, ranks: points of the distribution, between which `rank` interpolates.
    """

    model_config = ConfigDict(frozen=True)
    kind: Normalising
    mean: float = 0.0
    deviation: float = 1.0
    values: tuple[float, ...] = ()
    ranks: tuple[float, ...] = ()

    @classmethod
    def fit(cls, kind: Normalising, values: pd.Series[Any]) -> Self:
        """Fit on the values of train; values that are no finite number are left out."""
        numbers = as_numbers(values)
        finite = numbers[np.isfinite(numbers)]
        if kind == "none":
            return cls(kind=kind)
        raw = _logged(finite) if kind == "log" else finite
        deviation = float(raw.std(ddof=1)) if len(raw) > 1 else 0.0
        if deviation <= SAME * np.abs(raw).max(initial=0):
            return cls(kind="rank")  # without points every number becomes 0
        if kind == "rank":
            points, ranks = _distribution(finite)
            return cls(kind=kind, values=tuple(points.tolist()), ranks=tuple(ranks.tolist()))
        return cls(kind=kind, mean=float(raw.mean()), deviation=deviation)

    def apply(self, values: pd.Series[Any]) -> Floats:
        """Scaled numbers [n]; 0 for values that are no finite number."""
        numbers = as_numbers(values)
        if self.kind == "rank":
            scaled = np.interp(numbers, self.values, self.ranks) if self.values else numbers * 0
        else:
            scaled = (
                (_logged(numbers) if self.kind == "log" else numbers) - self.mean
            ) / self.deviation
        return np.where(np.isfinite(numbers), scaled, 0.0).astype(np.float32)


def as_numbers(values: pd.Series[Any]) -> npt.NDArray[np.float64]:
    """Values as numbers, NaN where they are none or mark a missing value. [n] → [n]"""
    numbers = pd.to_numeric(values, errors="coerce").to_numpy(dtype=np.float64, na_value=np.nan)
    return np.where(np.abs(numbers) <= LARGEST, numbers, np.nan)


def _logged(numbers: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return np.asarray(np.sign(numbers) * np.log1p(np.abs(numbers)))


def _distribution(
    numbers: npt.NDArray[np.float64],
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Distinct values and the share below each, ties counted half, as -1 to 1; at most POINTS of
    them, evenly taken.
    """
    values, counts = np.unique(numbers, return_counts=True)
    ranks = 2 * (counts.cumsum() - counts / 2) / len(numbers) - 1
    kept = np.unique(np.linspace(0, len(values) - 1, min(POINTS, len(values))).astype(np.int64))
    return values[kept], ranks[kept]
