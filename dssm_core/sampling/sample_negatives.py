"""The step `sample_negatives`: fit ids and scales on train, code the log, tabulate the sampler's
distribution.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from dssm_core.columns import ITEM, LABEL, TIME, USER
from dssm_core.config import Config
from dssm_core.features.activity import activity
from dssm_core.features.dataset import bucket_times, creation_times, first_known_times
from dssm_core.features.ids import Ids
from dssm_core.features.interactions import Interactions
from dssm_core.features.schema import Column, Schema, TowerColumns
from dssm_core.features.tables import check_embedding_sizes, fit_context, fit_table
from dssm_core.features.target_mean import fit_target_means
from dssm_core.features.tensors import as_named, save_tensors
from dssm_core.runs.layout import (
    LOG_FILE,
    SAMPLER_FILE,
    SCHEMA_FILE,
    TABLES_FILE,
    TRAIN_FILE,
    ids_file,
    table_file,
)
from dssm_core.runs.manifest import Outcome
from dssm_core.runs.run import Run
from dssm_core.sampling.sampler_tables import fit_sampler_tables, samplers_of

SCALE_PAIRS = 100_000  # (item, moment) pairs that the activity's mean and deviation are taken over


def sample_negatives(run: Run, work: Path) -> Outcome:
    """Step function. Reads the split's train positives; writes ids, vocabularies, the coded log and
    sampler tables.
    """
    config, split = run.config, run.need("split_by_time")
    train = pd.read_parquet(run.step("split_by_time") / TRAIN_FILE)
    positives = train[train[LABEL] == 1]
    tables = {side: _read(run, f"{side}s") for side in ("user", "item")}
    served = (
        tables["item"]
        if config.features.catalogue == "table" and tables["item"] is not None
        else positives
    )
    listed = positives[ITEM].isin(served[ITEM])
    unlisted, positives = int((~listed).sum()), positives[listed]
    ids = {USER: Ids.fit(positives[USER]), ITEM: Ids.fit(served[ITEM])}
    for column, fitted in ids.items():
        fitted.save(work / ids_file(column), column)
    features = config.features
    items, item_side = fit_table(features, "item", tables["item"], ids[ITEM], work)
    users, user_side = fit_table(features, "user", tables["user"], ids[USER], work)
    context, context_columns = fit_context(features, positives, work)
    window = (split.info["start_ms"], split.info["cutoff_ms"])
    items = replace(
        items,
        means=fit_target_means(
            features.columns.item, "item", tables["item"], ids[ITEM], train, window
        ),
    )
    users = replace(
        users,
        means=fit_target_means(
            features.columns.user, "user", tables["user"], ids[USER], train, window
        ),
    )
    log = replace(
        _log(positives, ids, context, tables["item"], window),
        **_shown(train[train[LABEL] == 0], ids),
    )
    scale = _activity_scale(log, config)
    schema = _schema(config, ids, user_side, item_side, context_columns, scale.shape[1])
    check_embedding_sizes(schema, features)
    save_tensors(
        work / TABLES_FILE,
        {**as_named("users", users), **as_named("items", items), "scale": scale},
    )
    save_tensors(work / LOG_FILE, as_named("log", log))
    (work / SCHEMA_FILE).write_text(schema.model_dump_json(indent=2))
    tabulated = fit_sampler_tables(config, log, ids)
    save_tensors(work / SAMPLER_FILE, tabulated)
    rows = {
        "positives": len(log.item),
        "users": len(ids[USER].index),
        "items": len(ids[ITEM].index),
    }
    rows |= (
        {"unlisted": unlisted} if unlisted else {}
    )  # of an item that the table of items, the catalogue, does not hold
    return Outcome(
        rows, {"sampler": config.sampler.kind, "refreshes": len(bucket_times(config, log))}
    )


def _read(run: Run, name: str) -> pd.DataFrame | None:
    file = run.step("validate_data") / table_file(name)
    return pd.read_parquet(file) if file.is_file() else None


def _log(
    rows: pd.DataFrame,
    ids: dict[str, Ids],
    context: Tensor,
    items: pd.DataFrame | None,
    window: tuple[int, int],
) -> Interactions:
    item = torch.from_numpy(ids[ITEM].encode(rows[ITEM]))
    time = torch.from_numpy(rows[TIME].to_numpy(dtype=np.int64, copy=True))
    created = first_known_times(
        torch.full((len(ids[ITEM]),), window[1]), item, time, creation_times(items, ids[ITEM])
    )
    return Interactions(
        torch.from_numpy(ids[USER].encode(rows[USER])),
        item,
        time,
        context,
        created,
        torch.tensor(window),
    )


def _shown(rows: pd.DataFrame, ids: dict[str, Ids]) -> dict[str, Tensor]:
    """Label 0 rows as the log's `shown_*`; users and items without a positive have no code and are
    left out.
    """
    user, item = (torch.from_numpy(ids[column].encode(rows[column])) for column in (USER, ITEM))
    kept = (user > 0) & (item > 0)
    time = torch.from_numpy(rows[TIME].to_numpy(dtype=np.int64, copy=True))
    return {"shown_user": user[kept], "shown_item": item[kept], "shown_time": time[kept]}


def _activity_scale(log: Interactions, config: Config) -> Tensor:
    """Mean and deviation of activity over items and refreshes drawn evenly. → [2, columns]; no
    columns where it is off.
    """
    if not config.features.activity.enabled:
        return torch.zeros(2, 0)
    times = bucket_times(config, log)
    known = len(log.created) - 1
    pairs = torch.linspace(0, known * len(times) - 1, min(SCALE_PAIRS, known * len(times))).long()
    raw = activity(
        log, pairs % known + 1, times[pairs // known], config.features.activity.windows_h
    )
    return torch.stack([raw.mean(0), raw.std(0).clamp(min=1e-3)])


def _schema(
    config: Config,
    ids: dict[str, Ids],
    user: TowerColumns,
    item: TowerColumns,
    context: list[Column],
    activity_columns: int,
) -> Schema:
    latest = config.features.activity.audience if config.features.activity.enabled else 0
    audience = (
        [column.model_copy(update={"values": latest}) for column in context] if latest else []
    )
    return Schema(
        items=len(ids[ITEM]),
        users=len(ids[USER]),
        user=TowerColumns(
            categorical=(*user.categorical, *context), multi=user.multi, numeric=user.numeric + 1
        ),
        item=TowerColumns(
            categorical=item.categorical,
            multi=(*item.multi, *audience),
            numeric=item.numeric + activity_columns,
        ),
    )


def sampler_files(run: Run) -> dict[str, Path]:
    """Each file that a sampler reads beside the log, by path: a previous model's vectors."""
    read: list[dict[str, Path]] = [sampler.files() for sampler in samplers_of(run.config).values()]
    return {str(file): file for files in read for file in files.values()}
