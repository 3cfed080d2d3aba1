"""Target means: the mean target of a value as of a moment, so that no event sees its own target
or a later one.

Target encoding (Micci-Barreca 2001) leaks if the mean of a row includes its own label. Leaving out
only that row would give an item another value for each event, so that the events of a batch could
not share embedded candidates, and it would still use the future. Means of rows strictly before the
moment exclude the event, for users and items, and are what serving sees.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Self

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from dssm_core.aliases import Doubles, Ints
from dssm_core.columns import ITEM, LABEL, TIME, USER
from dssm_core.config import Feature
from dssm_core.errors import DataError
from dssm_core.features.ids import Ids
from dssm_core.features.tensors import as_named
from dssm_core.features.time_keys import TimeKeys

KEYS = {"user": USER, "item": ITEM}


@dataclass(frozen=True)
class TargetMeans:
    """Targets of train rows by (group, time), for means as of any moment. F features.

    group: [codes, F] int64, 0 = none. everyone: [F], the group of all rows. keys: of (group, time),
    R of them. total: [R + 1] float64, sum of the targets before each key. scale: [2, F], smoothing
    and standard deviation. window: [2] ms.
    """

    group: Tensor
    everyone: Tensor
    total: Tensor
    scale: Tensor
    window: Tensor
    keys: TimeKeys = field(metadata={"of": TimeKeys})

    @classmethod
    def none(cls) -> Self:
        """The means of no feature."""
        nothing = torch.zeros(0, dtype=torch.int64)
        return cls(
            nothing.reshape(0, 0),
            nothing,
            torch.zeros(1).double(),
            torch.zeros(2, 0).double(),
            torch.zeros(2).long(),
            TimeKeys(nothing, nothing),
        )

    def to(self, device: torch.device | str) -> Self:
        """The same means on another device."""
        return type(self)(*(getattr(self, part.name).to(device) for part in fields(self)))

    def as_of(self, code: Tensor, moment: Tensor) -> Tensor:
        """How much the mean target of the code's group exceeds the mean of all rows, before a
        moment. code, moment (ms): [n] → [n, F] float32

        (sum - n * mean of all) / (n + smoothing) / deviation: 0 without rows, close to 0 with few
        rows.
        """
        if not len(self.everyone):
            return torch.zeros(len(code), 0, device=code.device)
        group = self.group[code]  # [n, F]
        count, total = self._before(group, moment)
        all_count, all_total = self._before(self.everyone.expand_as(group), moment)
        excess = total - count * all_total / all_count.clamp(min=1)
        return (excess / (count + self.scale[0]) / self.scale[1]).float()

    def _before(self, group: Tensor, moment: Tensor) -> tuple[Tensor, Tensor]:
        """Number of rows of each group before a moment, and the sum of their targets.

        group: [n, F]; moment: [n] → 2 x [n, F]
        """
        begin = self.keys.begin(group)
        end = self.keys.before(group, moment[:, None].expand_as(group))
        return end - begin, self.total[end] - self.total[begin]


def with_time_keys(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of both tables with `keys` in their means.

    Versions that older code registered have `key` instead: group * span + ms since the start of the
    window, where span is one more than the length of the window.
    """
    tensors = dict(tensors)
    for side in ("users", "items"):
        key = tensors.pop(f"{side}.means.key", None)
        if key is not None:
            start, end = tensors[f"{side}.means.window"].tolist()
            span = end - start + 1
            keys, _ = TimeKeys.of(key // span, start + key % span)
            tensors |= as_named(f"{side}.means.keys", keys)
    return tensors


def fit_target_means(
    features: tuple[Feature, ...],
    side: str,
    rows: pd.DataFrame | None,
    ids: Ids,
    train: pd.DataFrame | Path,
    window: tuple[int, int],
) -> TargetMeans:
    """Fit the target means of users or items (`side`). rows: their table, if there is one. train:
    the train rows, with label 0 too, or their Parquet file. window: start and end, ms.
    """
    chosen = [feature for feature in features if feature.kind == "target_mean"]
    if not chosen:
        return TargetMeans.none()
    if isinstance(train, Path):
        targets = sorted({feature.target for feature in chosen})
        train = pd.read_parquet(train, columns=[KEYS[side], TIME, *targets])
    parts, base = [], 1
    for feature in chosen:
        group = _groups(feature, KEYS[side], rows, ids, base)
        parts.append(
            (
                base,
                group,
                *_rows_by_group(feature, group[ids.encode(train[KEYS[side]])], train, base),
            )
        )
        base = max(int(group.max(initial=0)), base) + 1
    everyone, groups, codes, times, values, scales = zip(*parts, strict=True)
    code, time, value = map(np.concatenate, (codes, times, values))
    keys, order = TimeKeys.of(torch.from_numpy(code), torch.from_numpy(time))
    return TargetMeans(
        group=torch.from_numpy(np.stack(groups, axis=1)),
        everyone=torch.tensor(everyone),
        keys=keys,
        total=torch.from_numpy(np.concatenate([[0.0], value[order.numpy()].cumsum()])),
        scale=torch.tensor(scales, dtype=torch.float64).T.contiguous(),
        window=torch.tensor(window),
    )


def _groups(feature: Feature, key: str, rows: pd.DataFrame | None, ids: Ids, base: int) -> Ints:
    """The group of each code: base + 1 and higher by value; 0 without a value. → [codes]"""
    if feature.column == key:
        value = np.arange(len(ids.index))
    else:
        assert rows is not None  # fit_table checks it
        values = rows.set_index(key)[feature.column].reindex(ids.index)
        value = pd.factorize(values)[0].astype(np.int64)
    return np.concatenate([[0], np.where(value >= 0, value + base + 1, 0)]).astype(np.int64)


def _rows_by_group(
    feature: Feature, group: Ints, train: pd.DataFrame, base: int
) -> tuple[Ints, Ints, Doubles, tuple[float, float]]:
    """Groups, times and targets of train rows, once for their group and once for all rows; and
    (smoothing, standard deviation).
    """
    target = pd.to_numeric(train[feature.target], errors="coerce").to_numpy(
        dtype=np.float64, na_value=np.nan
    )
    finite = np.isfinite(target)
    if not finite.any() or np.ptp(target[finite]) == 0:
        hint = (
            ": the log has only positives; set `target` of the feature to a number such as a rating"
            if feature.target == LABEL
            else ""
        )
        raise DataError(
            f"the target {feature.target!r} of the target mean of {feature.column!r} has only one"
            f" value in train, so its mean has no information{hint}"
        )
    time = train[TIME].to_numpy(dtype=np.int64)
    grouped = finite & (group > 0)
    groups = np.concatenate([group[grouped], np.full(int(finite.sum()), base)])
    times = np.concatenate([time[grouped], time[finite]])
    targets = np.concatenate([target[grouped], target[finite]])
    return groups, times, targets, (feature.smoothing, float(target[finite].std()))
