"""Distances of each day from the days before it.

The distance of distributions is the Jensen-Shannon divergence in bits (Lin 1991, "Divergence
measures based on the Shannon entropy"): 0 for equal distributions, 1 for distributions that share
no value. Unlike the population stability index it is defined if one side lacks a value.
"""

from __future__ import annotations

import math

import numpy as np
from scipy.spatial.distance import jensenshannon

from dssm_core.aliases import Doubles

CHANCE = 0.02  # bits of divergence by chance up to which distributions are compared


def relative_change(values: Doubles) -> Doubles:
    """|value / mean of the values before - 1|; NaN for the first value and where the mean is 0.
    [D] → [D]
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        change = np.abs(values / _mean_before(values) - 1)
    return np.where(np.isfinite(change), change, np.nan)


def absolute_change(values: Doubles) -> Doubles:
    """|value - mean of the values before|; NaN values are left out of the mean. [D] → [D]"""
    return np.abs(values - _mean_before(values))


def divergences(counts: Doubles) -> Doubles:
    """Divergence of each row of counts from the sum of the rows before it. [D, V] → [D]

    It is NaN where the counts are too small to tell drift from chance: two samples of sizes n and m
    from one distribution over V values diverge by about (V - 1) (1/n + 1/m) / (8 ln 2) bits (the
    second-order term of the divergence, a chi-square over its degrees of freedom). More than CHANCE
    is not compared.
    """
    before = np.cumsum(counts, 0) - counts
    values = (counts.sum(0) > 0).sum()
    with np.errstate(divide="ignore", invalid="ignore"):
        chance = (values - 1) / (8 * math.log(2)) * (1 / counts.sum(1) + 1 / before.sum(1))
    return np.where(chance <= CHANCE, divergence(counts, before), np.nan)


def divergence(left: Doubles, right: Doubles) -> Doubles:
    """Jensen-Shannon divergence in bits of two arrays of counts or shares; NaN where all counts of
    one are 0. 2 x [..., V] → [...]
    """
    with np.errstate(invalid="ignore", divide="ignore"):
        bits = np.asarray(jensenshannon(left, right, base=2, axis=-1)) ** 2
    # rounding can make the divergence of equal distributions negative, and its square root NaN
    bits = np.clip(np.nan_to_num(bits), 0.0, 1.0)
    empty = (np.sum(left, -1) == 0) | (np.sum(right, -1) == 0)
    return np.asarray(np.where(empty, np.nan, bits), dtype=np.float64)


def _mean_before(values: Doubles) -> Doubles:
    """Mean of the finite values before each position; NaN where there is none. [D] → [D]"""
    finite = np.isfinite(values)
    sums = np.cumsum(np.where(finite, values, 0))
    with np.errstate(invalid="ignore", divide="ignore"):
        means = sums / np.cumsum(finite)
    return np.concatenate([[np.nan], means[:-1]])
