"""The coded dataset: what training, export and evaluation start from, and the refresh times of
training.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from safetensors.torch import load_file
from torch import Tensor

from dssm_core.columns import (
    AVAILABLE_FROM,
    AVAILABLE_UNTIL,
    CREATED,
    DAY_MS,
    HOUR_MS,
    ITEM,
)
from dssm_core.config import Config
from dssm_core.data.splits.days import Days
from dssm_core.errors import ArtifactError, ConfigError
from dssm_core.features.activity import refresh_times
from dssm_core.features.code_rows import load_code_rows
from dssm_core.features.ids import Ids
from dssm_core.features.inputs import ColumnTable
from dssm_core.features.interactions import Interactions
from dssm_core.features.schema import Schema
from dssm_core.features.target_mean import with_time_keys
from dssm_core.features.tensors import from_named
from dssm_core.runs.layout import CODE_ROWS_FILE, LOG_FILE, SCHEMA_FILE, TABLES_FILE

NO_CREATION_TIME = torch.iinfo(torch.int64).min


@dataclass(frozen=True)
class Prepared:
    """What training, export and evaluation start from. scale: [2, activity columns], mean and
    standard deviation on train.
    """

    log: Interactions
    users: ColumnTable
    items: ColumnTable
    scale: Tensor
    schema: Schema

    def to(self, device: torch.device | str) -> Prepared:
        """The same dataset on another device."""
        return Prepared(
            self.log.to(device),
            self.users.to(device),
            self.items.to(device),
            self.scale.to(device),
            self.schema,
        )


def load_prepared(folder: Path, with_log: bool = True) -> Prepared:
    """Read what the step `sample_negatives` wrote, on the CPU. Serving needs no log. Of the items
    from before the log, only those with a trained id are kept.

    Raises ArtifactError if other code wrote it, whose tensors have other names.
    """
    tensors = with_time_keys(load_file(folder / TABLES_FILE))
    schema = Schema.model_validate_json((folder / SCHEMA_FILE).read_bytes())
    try:
        log = load_log(folder) if with_log else empty_log()
        log = replace(log, prior=log.prior.of_items(schema.items))
        users = from_named(ColumnTable, "users", tensors)
        items = from_named(ColumnTable, "items", tensors)
        return Prepared(log, users, items, tensors["scale"], schema)
    except KeyError as error:
        raise ArtifactError(
            f"{folder} has no tensor {error}: another version of this code wrote it. Train a new"
            " run"
        ) from error


def load_log(folder: Path) -> Interactions:
    """The log and its rows by user and by item, mapped into memory.

    Raises ArtifactError if other code wrote it, which wrote other files.
    """
    if not (folder / CODE_ROWS_FILE).is_file():
        raise ArtifactError(
            f"{folder} has no {CODE_ROWS_FILE}: another version of this code wrote it. Train a new"
            " run"
        )
    log: Interactions = from_named(Interactions, "log", load_file(folder / LOG_FILE))
    by_user, by_item = load_code_rows(folder / CODE_ROWS_FILE, "user", "item")
    return replace(log, by_user=by_user, by_item=by_item)


def bucket_times(config: Config, log: Interactions) -> Tensor:
    """The refresh time of each bucket, ms, ascending. → [buckets]; if activity is disabled, one
    bucket at the start of the window.
    """
    times = (
        refresh_times(log.start, log.end, config.features)
        if config.features.activity.enabled
        else [log.start]
    )
    if not times:
        hours = (log.end - log.start) // HOUR_MS
        raise ConfigError(
            f"features.activity.refresh_h is {config.features.activity.refresh_h} hours, but the"
            f" train window has only {hours}: no refresh lies inside it. Raise split.train_days, or"
            " lower refresh_h"
        )
    return torch.tensor(times)


def selection_log(config: Config, log: Interactions) -> Interactions:
    """The log without its validation slice, for choosing the number of epochs.

    The slice begins at the latest refresh that is `split.validation_days` or more before the
    cutoff. If the split has no days, it is the last interaction of each user.
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
            "the train window has no refresh a day before the cutoff: set split.train_days to 2 or"
            " more"
        )
    return int(earlier[-1])


def empty_log() -> Interactions:
    """A log of no interactions."""
    none = torch.zeros(0, dtype=torch.int64)
    return Interactions(
        none, none, none, none.reshape(0, 0), none, torch.zeros(2, dtype=torch.int64)
    )


def creation_times(items: pd.DataFrame | None, ids: Ids) -> Tensor:
    """Creation time of each item in the items table, ms; NO_CREATION_TIME where it has none.
    → [codes]
    """
    return _item_times(items, ids, CREATED, NO_CREATION_TIME)


def availability(items: pd.DataFrame | None, ids: Ids) -> dict[str, Tensor]:
    """The `available_*` of an Interactions, [codes] each; nothing if the items table has neither
    column. An item without one of these times has no such limit.
    """
    int64 = torch.iinfo(torch.int64)
    missing = {AVAILABLE_FROM: int64.min, AVAILABLE_UNTIL: int64.max}
    if items is None or not missing.keys() & set(items):
        return {}
    return {name: _item_times(items, ids, name, value) for name, value in missing.items()}


def _item_times(items: pd.DataFrame | None, ids: Ids, column: str, missing: int) -> Tensor:
    """A time of each item in the items table, ms; `missing` where it has none. → [codes]"""
    times = np.full(len(ids), missing, dtype=np.int64)
    if items is not None and column in items:
        values = items.set_index(ITEM)[column].reindex(ids.index)
        held = values.notna().to_numpy()
        times[1:][held] = values[held]
    return torch.from_numpy(times)


def first_known_times(fallback: Tensor, item: Tensor, time: Tensor, created: Tensor) -> Tensor:
    """When each item is first known, ms: its creation time; without one, the first click or
    `fallback`, whichever is earlier. item, time: [n]; fallback, created: [codes] → [codes]
    """
    first_click = fallback.scatter_reduce(0, item, time, "amin")
    return torch.where(created > NO_CREATION_TIME, created, first_click)
