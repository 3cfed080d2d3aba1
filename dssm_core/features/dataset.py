"""The coded dataset: what training, export and evaluation start from, and the moments that it is
known at.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from safetensors.torch import load_file
from torch import Tensor

from dssm_core.columns import CREATED, DAY_MS, HOUR_MS, ITEM
from dssm_core.config import Config
from dssm_core.data.splits.days import Days
from dssm_core.errors import ConfigError
from dssm_core.features.activity import refresh_times
from dssm_core.features.ids import Ids
from dssm_core.features.inputs import ColumnTable
from dssm_core.features.interactions import Interactions
from dssm_core.features.schema import Schema
from dssm_core.features.tensors import from_named
from dssm_core.runs.layout import LOG_FILE, SCHEMA_FILE, TABLES_FILE

NO_CREATION_TIME = torch.iinfo(torch.int64).min


@dataclass(frozen=True)
class Prepared:
    """What training, export and evaluation start from. scale: [2, activity columns]."""

    log: Interactions
    users: ColumnTable
    items: ColumnTable
    scale: Tensor
    schema: Schema

    def to(self, device: torch.device | str) -> Prepared:
        """The same on another device."""
        return Prepared(
            self.log.to(device),
            self.users.to(device),
            self.items.to(device),
            self.scale.to(device),
            self.schema,
        )


def load_prepared(folder: Path, with_log: bool = True) -> Prepared:
    """What `sample_negatives` wrote, on the CPU; without its log (serving needs none) on request."""
    tensors = load_file(folder / TABLES_FILE)
    schema = Schema.model_validate_json((folder / SCHEMA_FILE).read_bytes())
    log = from_named(Interactions, "log", load_file(folder / LOG_FILE)) if with_log else empty_log()
    return Prepared(
        log,
        from_named(ColumnTable, "users", tensors),
        from_named(ColumnTable, "items", tensors),
        tensors["scale"],
        schema,
    )


def bucket_times(config: Config, log: Interactions) -> Tensor:
    """Each bucket's refresh, ms, ascending. → [buckets]; one bucket, at the start, where activity
    is off.
    """
    times = (
        refresh_times(log.start, log.end, config.features)
        if config.features.activity.enabled
        else [log.start]
    )
    if not times:
        hours = (log.end - log.start) // HOUR_MS
        raise ConfigError(
            f"features.activity.refresh_h is {config.features.activity.refresh_h} but the train window has only {hours} "
            "hours: no refresh lies inside it; give more split.train_days or a smaller refresh_h"
        )
    return torch.tensor(times)


def selection_log(config: Config, log: Interactions) -> Interactions:
    """What is known while the number of epochs is chosen: the log without its validation slice.

    The slice is what follows the latest refresh `split.validation_days` or more before the cutoff;
    where the split has no days, each user's last interaction.
    """
    return (
        log.before(_validation_start(config, config.split, log))
        if isinstance(config.split, Days)
        else log.without(log.last_of_each())
    )


def _validation_start(config: Config, split: Days, log: Interactions) -> int:
    day = log.end - split.validation_days * DAY_MS
    if not config.features.activity.enabled:
        return day
    earlier = [time for time in bucket_times(config, log).tolist() if time <= day]
    if not earlier:
        raise ConfigError(
            "the train window holds no refresh a day before the cutoff: give 2 or more split.train_days"
        )
    return int(earlier[-1])


def empty_log() -> Interactions:
    """A log of no interactions."""
    none = torch.zeros(0, dtype=torch.int64)
    return Interactions(
        none, none, none, none.reshape(0, 0), none, torch.zeros(2, dtype=torch.int64)
    )


def creation_times(items: pd.DataFrame | None, ids: Ids) -> Tensor:
    """When each code's item was created, ms, as the items table says; NO_CREATION_TIME where it does not. →
    [codes].
    """
    told = torch.full((len(ids),), NO_CREATION_TIME)
    if items is not None and CREATED in items:
        told[1:] = torch.from_numpy(
            items.set_index(ITEM)[CREATED]
            .reindex(ids.index)
            .fillna(NO_CREATION_TIME)
            .to_numpy(np.int64, copy=True)
        )
    return told


def first_known_times(otherwise: Tensor, item: Tensor, time: Tensor, told: Tensor) -> Tensor:
    """When items are first known of, ms: as told, else the first click or `otherwise`, the earlier.
    item, time: [n]; others, →: [codes].
    """
    return torch.where(
        told > NO_CREATION_TIME, told, otherwise.scatter_reduce(0, item, time, "amin")
    )
