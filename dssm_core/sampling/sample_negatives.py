"""The step `sample_negatives`: the coded dataset, and the tables that negatives are drawn from.

Ids, vocabularies and scales are fitted on the train part only.
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
from dssm_core.features.dataset import (
    availability,
    bucket_times,
    creation_times,
    first_known_times,
)
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

SCALE_PAIRS = 100_000  # (item, refresh) pairs in the mean and deviation of the activity


def sample_negatives(run: Run, work: Path) -> Outcome:
    """Step function. Write ids, vocabularies, the coded log of positives and the sampler tables."""
    config = run.config
    features = config.features
    split = run.need("split_by_time")
    window = (split.info["start_ms"], split.info["cutoff_ms"])
    train = pd.read_parquet(run.step("split_by_time") / TRAIN_FILE)
    positives = train[train[LABEL] == 1]
    tables = {side: _read(run, f"{side}s") for side in ("user", "item")}
    served = positives
    if features.catalogue == "table" and tables["item"] is not None:
        served = tables["item"]
    listed = positives[ITEM].isin(served[ITEM])
    positives = positives[listed]
    ids = {USER: Ids.fit(positives[USER]), ITEM: Ids.fit(served[ITEM])}
    for column, vocabulary in ids.items():
        vocabulary.save(work / ids_file(column), column, lookup=True)
    items, item_columns = fit_table(features, "item", tables["item"], ids[ITEM], work)
    users, user_columns = fit_table(features, "user", tables["user"], ids[USER], work)
    context, context_columns = fit_context(features, positives, work)
    item_means = fit_target_means(
        features.columns.item, "item", tables["item"], ids[ITEM], train, window
    )
    user_means = fit_target_means(
        features.columns.user, "user", tables["user"], ids[USER], train, window
    )
    items = replace(items, means=item_means)
    users = replace(users, means=user_means)
    log = _log(positives, ids, context, tables["item"], window)
    log = replace(log, **_shown(train[train[LABEL] == 0], ids))
    scale = _activity_scale(log, config)
    schema = _schema(config, ids, user_columns, item_columns, context_columns, scale.shape[1])
    check_embedding_sizes(schema, features)
    coded = {**as_named("users", users), **as_named("items", items), "scale": scale}
    save_tensors(work / TABLES_FILE, coded)
    save_tensors(work / LOG_FILE, as_named("log", log))
    (work / SCHEMA_FILE).write_text(schema.model_dump_json(indent=2))
    save_tensors(work / SAMPLER_FILE, fit_sampler_tables(config, log, ids))
    rows = {
        "positives": len(log.item),
        "users": len(ids[USER].index),
        "items": len(ids[ITEM].index),
    }
    if not listed.all():  # positives of items that are not in the items table, the catalogue
        rows["unlisted"] = int((~listed).sum())
    info = {"sampler": config.sampler.kind, "refreshes": len(bucket_times(config, log))}
    return Outcome(rows, info)


def _read(run: Run, name: str) -> pd.DataFrame | None:
    """A validated table, None if the source has none."""
    file = run.step("validate_data") / table_file(name)
    return pd.read_parquet(file) if file.is_file() else None


def _log(
    rows: pd.DataFrame,
    ids: dict[str, Ids],
    context: Tensor,
    items: pd.DataFrame | None,
    window: tuple[int, int],
) -> Interactions:
    """The positives as codes. context: [n, columns] codes; window: start and end, ms."""
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
        **availability(items, ids[ITEM]),
    )


def _shown(rows: pd.DataFrame, ids: dict[str, Ids]) -> dict[str, Tensor]:
    """The rows of label 0 as the log's `shown_*`, without users and items that have no positive and
    therefore no code.
    """
    user = torch.from_numpy(ids[USER].encode(rows[USER]))
    item = torch.from_numpy(ids[ITEM].encode(rows[ITEM]))
    known = (user > 0) & (item > 0)
    time = torch.from_numpy(rows[TIME].to_numpy(dtype=np.int64, copy=True))
    return {"shown_user": user[known], "shown_item": item[known], "shown_time": time[known]}


def _activity_scale(log: Interactions, config: Config) -> Tensor:
    """Mean and standard deviation of item activity over an even sample of items and refreshes. →
    [2, columns], without columns if activity is off.
    """
    if not config.features.activity.enabled:
        return torch.zeros(2, 0)
    times = bucket_times(config, log)
    n_items = len(log.created) - 1
    n_pairs = n_items * len(times)
    pairs = torch.linspace(0, n_pairs - 1, min(SCALE_PAIRS, n_pairs)).long()
    windows_h = config.features.activity.windows_h
    raw = activity(log, pairs % n_items + 1, times[pairs // n_items], windows_h)
    return torch.stack([raw.mean(0), raw.std(0).clamp(min=1e-3)])


def _schema(
    config: Config,
    ids: dict[str, Ids],
    user: TowerColumns,
    item: TowerColumns,
    context: list[Column],
    activity_columns: int,
) -> Schema:
    """The columns of both towers. The item tower also gets the audience (the contexts of an item's
    latest clicks) and the activity.
    """
    latest = config.features.activity.audience if config.features.activity.enabled else 0
    audience = []
    if latest:
        audience = [column.model_copy(update={"values": latest}) for column in context]
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
    """The files that samplers read beside the log, such as a previous model's vectors, by path."""
    files = [
        file for sampler in samplers_of(run.config).values() for file in sampler.files().values()
    ]
    return {str(file): file for file in files}
