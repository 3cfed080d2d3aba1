"""The step `sample_negatives`: fit ids and scales on train, code the log, tabulate the sampler's distribution."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from safetensors.torch import load_file
from torch import Tensor

from dssm_core import families
from dssm_core.artifacts import Run
from dssm_core.checkpoint import save_tensors
from dssm_core.config import Config, Feature
from dssm_core.errors import ConfigError, DataError
from dssm_core.features import Log, Table, activity, as_named, from_named, refresh_times
from dssm_core.fields import Column, Schema, Side
from dssm_core.ids import Ids
from dssm_core.losses import LOSSES
from dssm_core.samplers import SAMPLERS
from dssm_core.samplers.in_batch import InBatch
from dssm_core.samplers.protocol import FittedIds, Tables
from dssm_core.schema import CREATED, DAY_MS, HOUR_MS, ITEM, LABEL, TIME, USER
from dssm_core.splits.days import Days
from dssm_core.steps import Outcome

SCALE_PAIRS = 100_000  # (item, moment) pairs that the activity's mean and deviation are taken over


@dataclass(frozen=True)
class Prepared:
    """What training, export and evaluation start from. scale: [2, activity columns]."""

    log: Log
    users: Table
    items: Table
    scale: Tensor
    schema: Schema

    def to(self, device: torch.device | str) -> Prepared:
        """The same on another device."""
        return Prepared(self.log.to(device), self.users.to(device), self.items.to(device), self.scale.to(device), self.schema)


def prepare(run: Run, work: Path) -> Outcome:
    """Step function. Reads the split's train positives; writes ids, vocabularies, the coded log and sampler tables."""
    config, split = run.config, run.need("split_by_time")
    train = pd.read_parquet(run.step("split_by_time") / "train.parquet")
    positives = train[train[LABEL] == 1]
    ids = {USER: Ids.fit(positives[USER]), ITEM: Ids.fit(positives[ITEM])}
    for column, fitted in ids.items():
        fitted.save(work / f"{column}s.parquet", column)
    tables = {side: _read(run, f"{side}s") for side in ("user", "item")}
    users, user_side = _table(config.features.columns.user, tables["user"], ids[USER], USER, work)
    items, item_side = _table(config.features.columns.item, tables["item"], ids[ITEM], ITEM, work)
    context, context_columns = _context(config.features.columns.context, positives, work)
    window = (split.info["start_ms"], split.info["cutoff_ms"])
    log = replace(_log(positives, ids, context, tables["item"], window), **_shown(train[train[LABEL] == 0], ids))
    scale = _activity_scale(log, config)
    schema = _schema(config, ids, user_side, item_side, context_columns, scale.shape[1])
    save_tensors(work / "tables.safetensors", {**as_named("users", users), **as_named("items", items), "scale": scale})
    save_tensors(work / "log.safetensors", as_named("log", log))
    (work / "schema.json").write_text(schema.model_dump_json(indent=2))
    tabulated = _sampler_tables(config, log, ids)
    save_tensors(work / "sampler.safetensors", tabulated)
    rows = {"positives": len(log.item), "users": len(ids[USER].index), "items": len(ids[ITEM].index)}
    return Outcome(rows, {"sampler": config.sampler.kind, "refreshes": len(bucket_times(config, log))})


def load_prepared(folder: Path, with_log: bool = True) -> Prepared:
    """What `prepare` wrote, on the CPU; without its log (serving needs none) on request."""
    tensors = load_file(folder / "tables.safetensors")
    schema = Schema.model_validate_json((folder / "schema.json").read_bytes())
    log = from_named(Log, "log", load_file(folder / "log.safetensors")) if with_log else empty_log()
    return Prepared(log, from_named(Table, "users", tensors), from_named(Table, "items", tensors), tensors["scale"], schema)


def load_sampler_tables(folder: Path, phase: str, sampler: str) -> Tables:
    """Tables of `sampler` (or `in_batch`: the batch itself, where the loss uses it) in a phase (`select` or `refit`)."""
    prefix = f"{phase}.{sampler}."
    return {name.removeprefix(prefix): t for name, t in load_file(folder / "sampler.safetensors").items() if name.startswith(prefix)}


def bucket_times(config: Config, log: Log) -> Tensor:
    """Each bucket's refresh, ms, ascending. → [buckets]; one bucket, at the start, where activity is off."""
    times = refresh_times(log.start, log.end, config.features) if config.features.activity.enabled else [log.start]
    if not times:
        hours = (log.end - log.start) // HOUR_MS
        raise ConfigError(
            f"features.activity.refresh_h is {config.features.activity.refresh_h} but the train window has only {hours} "
            "hours: no refresh lies inside it; give more split.train_days or a smaller refresh_h"
        )
    return torch.tensor(times)


def selection_log(config: Config, log: Log) -> Log:
    """What is known while the number of epochs is chosen: the log without its validation slice.

    The slice is what follows the latest refresh `split.validation_days` or more before the cutoff; where the split has
    no days, each user's last interaction.
    """
    return log.before(_validation_start(config, config.split, log)) if isinstance(config.split, Days) else log.without(log.last_of_each())


def _validation_start(config: Config, split: Days, log: Log) -> int:
    day = log.end - split.validation_days * DAY_MS
    if not config.features.activity.enabled:
        return day
    earlier = [time for time in bucket_times(config, log).tolist() if time <= day]
    if not earlier:
        raise ConfigError("the train window holds no refresh a day before the cutoff: give 2 or more split.train_days")
    return int(earlier[-1])


def encode_context(features: tuple[Feature, ...], rows: pd.DataFrame, folder: Path) -> Tensor:
    """Codes of context columns by the saved vocabularies; a column that is missing is unknown. → [n, columns]."""
    codes = [
        Ids.load(folder / f"vocabulary.context.{feature.column}.parquet").encode(rows[feature.column])
        if feature.column in rows
        else np.zeros(len(rows), dtype=np.int64)
        for feature in features
    ]
    return torch.from_numpy(np.stack(codes, axis=1)) if codes else torch.zeros(len(rows), 0, dtype=torch.int64)


def empty_log() -> Log:
    """A log of no interactions."""
    none = torch.zeros(0, dtype=torch.int64)
    return Log(none, none, none, none.reshape(0, 0), none, torch.zeros(2, dtype=torch.int64))


def _read(run: Run, name: str) -> pd.DataFrame | None:
    file = run.step("validate_data") / f"{name}.parquet"
    return pd.read_parquet(file) if file.is_file() else None


def _table(features: tuple[Feature, ...], rows: pd.DataFrame | None, ids: Ids, key: str, work: Path) -> tuple[Table, Side]:
    """Static columns by code, vocabularies fitted on the train window's users or items."""
    side = key.removesuffix("_id")
    if features and rows is None:
        raise ConfigError(f"features.columns.{side} names columns, but the source has no {side}s table")
    found = rows.set_index(key).reindex(ids.index) if rows is not None else pd.DataFrame(index=ids.index)
    of = {kind: [feature for feature in features if feature.kind == kind] for kind in ("categorical", "multi", "numeric")}
    for feature in features:
        _require(feature, found, f"{side}s")
    single = [_coded(feature, found[feature.column], side, work) for feature in of["categorical"]]
    several = [_coded_lists(feature, found[feature.column], side, work) for feature in of["multi"]]
    numeric = [_standardised(found[feature.column]) for feature in of["numeric"]]
    width = max((codes.shape[1] for codes, _ in several), default=1)
    padded = [np.pad(codes, ((0, 0), (0, width - codes.shape[1]))) for codes, _ in several]
    table = Table(
        _with_unknown([codes for codes, _ in single], (len(ids.index),), np.int64),
        _with_unknown(padded, (len(ids.index), width), np.int64),
        _with_unknown(numeric, (len(ids.index),), np.float32),
    )
    columns = {"categorical": tuple(column for _, column in single), "multi": tuple(column for _, column in several)}
    return table, Side(**columns, numeric=len(numeric))


def _with_unknown(columns: list[Any], shape: tuple[int, ...], kind: Any) -> Tensor:
    """Columns [n, …] side by side, with a first row of zeros for the unknown. → [n + 1, columns, …]."""
    stacked = np.stack(columns, axis=1) if columns else np.zeros((shape[0], 0, *shape[1:]))
    return torch.from_numpy(np.concatenate([np.zeros((1, *stacked.shape[1:])), stacked]).astype(kind))


def _require(feature: Feature, rows: pd.DataFrame, table: str) -> None:
    if feature.column not in rows:
        have = ", ".join(map(str, rows.columns))
        raise DataError(f"the {table} table has no column {feature.column!r} that features.columns names; it has {have}")


def _coded(feature: Feature, values: pd.Series[Any], side: str, work: Path) -> tuple[Any, Column]:
    ids = Ids.fit(values)
    ids.save(work / f"vocabulary.{side}.{feature.column}.parquet", feature.column)
    return ids.encode(values), Column(column=feature.column, size=len(ids), dim=feature.dim)


def _coded_lists(feature: Feature, values: pd.Series[Any], side: str, work: Path) -> tuple[Any, Column]:
    """[n, most values a row] codes of a multi-valued column, 0 where a row has fewer."""
    lists = values.reset_index(drop=True).dropna()
    lists = lists.str.split(feature.separator, regex=False) if pd.api.types.is_string_dtype(lists) else lists
    flat = lists.explode().dropna()
    codes, column = _coded(feature, flat, side, work)
    place = flat.groupby(level=0).cumcount().to_numpy()
    out = np.zeros((len(values), int(place.max(initial=0)) + 1), dtype=np.int64)
    out[flat.index.to_numpy(), place] = codes
    return out, column.model_copy(update={"values": out.shape[1]})


def _standardised(values: pd.Series[Any]) -> Any:
    numbers = pd.to_numeric(values, errors="coerce")
    return ((numbers - numbers.mean()) / (numbers.std() or 1.0)).fillna(0.0).to_numpy(dtype=np.float32)


def _context(features: tuple[Feature, ...], rows: pd.DataFrame, work: Path) -> tuple[Tensor, list[Column]]:
    """Codes of the context columns of interactions. → [n, columns], and their tables' sizes."""
    for feature in features:
        _require(feature, rows, "interactions")
    columns = [_coded(feature, rows[feature.column], "context", work)[1] for feature in features]
    return encode_context(features, rows, work), columns


def _log(rows: pd.DataFrame, ids: dict[str, Ids], context: Tensor, items: pd.DataFrame | None, window: tuple[int, int]) -> Log:
    item = torch.from_numpy(ids[ITEM].encode(rows[ITEM]))
    time = torch.from_numpy(rows[TIME].to_numpy(dtype=np.int64, copy=True))
    created = torch.full((len(ids[ITEM]),), window[1]).scatter_reduce(0, item, time, "amin")
    if items is not None and CREATED in items:
        known = items.set_index(ITEM)[CREATED].reindex(ids[ITEM].index)
        created[1:] = torch.from_numpy(known.fillna(pd.Series(created[1:].numpy(), index=known.index)).to_numpy(np.int64))
    return Log(torch.from_numpy(ids[USER].encode(rows[USER])), item, time, context, created, torch.tensor(window))


def _shown(rows: pd.DataFrame, ids: dict[str, Ids]) -> dict[str, Tensor]:
    """Label 0 rows as the log's `shown_*`; users and items without a positive have no code and are left out."""
    user, item = (torch.from_numpy(ids[column].encode(rows[column])) for column in (USER, ITEM))
    kept = (user > 0) & (item > 0)
    time = torch.from_numpy(rows[TIME].to_numpy(dtype=np.int64, copy=True))
    return {"shown_user": user[kept], "shown_item": item[kept], "shown_time": time[kept]}


def _activity_scale(log: Log, config: Config) -> Tensor:
    """Mean and deviation of activity over items and refreshes drawn evenly. → [2, columns]; no columns where it is off."""
    if not config.features.activity.enabled:
        return torch.zeros(2, 0)
    times = bucket_times(config, log)
    known = len(log.created) - 1
    pairs = torch.linspace(0, known * len(times) - 1, min(SCALE_PAIRS, known * len(times))).long()
    raw = activity(log, pairs % known + 1, times[pairs // known], config.features.activity.windows_h)
    return torch.stack([raw.mean(0), raw.std(0).clamp(min=1e-3)])


def _schema(config: Config, ids: dict[str, Ids], user: Side, item: Side, context: list[Column], activity_columns: int) -> Schema:
    latest = config.features.activity.audience if config.features.activity.enabled else 0
    audience = [column.model_copy(update={"values": latest}) for column in context] if latest else []
    return Schema(
        items=len(ids[ITEM]),
        users=len(ids[USER]),
        user=Side(categorical=(*user.categorical, *context), multi=user.multi, numeric=user.numeric + 1),
        item=Side(categorical=item.categorical, multi=(*item.multi, *audience), numeric=item.numeric + activity_columns),
    )


def _sampler_tables(config: Config, log: Log, ids: FittedIds) -> Tables:
    """`phase.sampler.table`: for both phases of training, so that selection draws by no click of its validation day."""
    loss = families.load(LOSSES, config.loss.kind)
    samplers = {} if loss.whole_catalogue else {"sampler": families.build(SAMPLERS, config.sampler)}
    if loss.in_batch:
        samplers["in_batch"] = InBatch()
    return {
        f"{phase}.{name}.{table}": tensor.contiguous().clone()
        for phase, known in (("select", selection_log(config, log)), ("refit", log))
        for name, sampler in samplers.items()
        for table, tensor in sampler.fit(known, bucket_times(config, log), ids).items()
    }
