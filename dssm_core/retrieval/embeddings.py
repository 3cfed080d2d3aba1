"""The step `export_embeddings`: the vector of each user and item as of the cutoff."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from dssm_core.aliases import Floats
from dssm_core.columns import HOUR_MS, ITEMS
from dssm_core.config import Config
from dssm_core.features.dataset import Prepared, bucket_times, load_log, load_prepared
from dssm_core.features.events import training_events
from dssm_core.features.ids import Ids
from dssm_core.features.inputs import item_inputs, users_as_of
from dssm_core.features.interactions import Interactions
from dssm_core.features.popularity import (
    HOT_PLACES,
    HOT_WINDOWS_H,
    Clicks,
    hottest_overall,
    hottest_recently,
)
from dssm_core.models.two_tower import TwoTower
from dssm_core.retrieval.catalogue import make_catalogue, read_items
from dssm_core.retrieval.encoder import load_towers, users_per_batch
from dssm_core.retrieval.new_users import HotList
from dssm_core.retrieval.seen_items import SeenItems
from dssm_core.runs.layout import (
    CODE_ROWS_FILE,
    ITEM_EMBEDDINGS_FILE,
    ITEM_IDS_FILE,
    LOG_FILE,
    MANIFEST_FILE,
    SAMPLER_FILE,
    TOWERS_FILE,
    USER_EMBEDDINGS_FILE,
    USER_IDS_FILE,
    table_file,
)
from dssm_core.runs.manifest import Outcome
from dssm_core.runs.progress_log import logged
from dssm_core.runs.run import Run

ITEMS_PER_BATCH = 8192
NOT_SERVED = (MANIFEST_FILE, LOG_FILE, CODE_ROWS_FILE, SAMPLER_FILE)  # files of sample_negatives


def export_embeddings(run: Run, work: Path) -> Outcome:
    """Step function. Write all that is served except the index.

    The files are user_embeddings.npy (row = code, row 0 = the unknown user), item_embeddings.npy
    (row = code - 1), the towers, and the ids, vocabularies and column tables that encode a user;
    the items that each user has seen, and the columns that items are filtered by; also hot.parquet
    if the unknown user's vector was not trained (see new_users.py).
    """
    prepared = load_prepared(run.step("sample_negatives"))
    model = load_towers(run.step("train_towers"), run.config, prepared)
    items = embed_items(model, prepared, run.config)
    users = embed_users(model, prepared, run.config)
    np.save(work / ITEM_EMBEDDINGS_FILE, items)
    np.save(work / USER_EMBEDDINGS_FILE, users)
    _copy_encoder(run, work)
    _write_filters(run, work)
    hot = hot_list(prepared.log, run.config)
    if hot is not None:
        hot.save(work)
    info = {"dim": items.shape[1], "newcomers": "context" if hot is None else "hot"}
    return Outcome({"users": len(users) - 1, "items": len(items)}, info)


@torch.no_grad()
def embed_items(model: TwoTower, prepared: Prepared, config: Config, first: int = 1) -> Floats:
    """Vectors of the items from code `first` on, as of the end of the window. → [N, D], row = code
    - first.

    Items without a trained id embedding are embedded by their features.
    """
    log = prepared.log

    def embed(codes: Tensor) -> Tensor:
        return model.items(
            item_inputs(log, prepared.items, codes, log.end, config.features, prepared.scale)
        )

    parts = torch.arange(first, len(log.created)).split(ITEMS_PER_BATCH)
    return torch.cat([embed(part) for part in logged(parts, "embedding items")]).numpy()


@torch.no_grad()
def embed_users(model: TwoTower, prepared: Prepared, config: Config) -> Floats:
    """Vectors of all users as of the end of the window. → [U + 1, D], row = code."""
    log = prepared.log
    table = prepared.users

    def embed(codes: Tensor) -> Tensor:
        as_of = torch.full_like(codes, log.end)
        return model.users(users_as_of(log, table, codes, as_of, config.features))

    parts = torch.arange(len(table.numeric)).split(users_per_batch(config.features))
    return torch.cat([embed(part) for part in logged(parts, "embedding users")]).numpy()


def hot_list(log: Interactions, config: Config) -> HotList | None:
    """The list that answers new users (see `most_clicked`); None if the user tower was trained on
    empty histories and answers them itself.
    """
    return None if trained_on_empty_histories(log, config) else most_clicked(log, config)


def most_clicked(log: Interactions, config: Config) -> HotList:
    """The most clicked items at the end of the log.

    They are those of the baseline `recent_hot`, or of `hot` if the split is not by time.
    """
    clicks = Clicks.of(log)
    if config.split.by_time:
        rows, info = hottest_recently(clicks, log.end, HOT_WINDOWS_H, HOT_PLACES)
        clicks = clicks.between(log.end - info["window_h"] * HOUR_MS, log.end)
    else:
        rows = hottest_overall(clicks, log.end)
    shares = clicks.counts() / max(1, len(clicks.items))
    return HotList(rows, shares[rows].astype(np.float32))


def trained_on_empty_histories(log: Interactions, config: Config) -> bool:
    """Whether the user tower was trained on empty histories beside others."""
    if config.features.history.length == 0:
        return False
    if not config.features.activity.enabled:
        return config.train.target == "rest"
    events = training_events(log, bucket_times(config, log))
    first_items = log.history(events.user, events.as_of, 1)[0]
    return bool((first_items == 0).any())


def _write_filters(run: Run, work: Path) -> None:
    """Write what lists leave out: seen items, and items by their columns."""
    users = Ids.load(work / USER_IDS_FILE)
    items = Ids.load(work / ITEM_IDS_FILE)
    log = load_log(run.step("sample_negatives"))
    user = torch.cat([log.user, log.prior.user]).numpy()
    item = torch.cat([log.item, log.prior.item]).numpy()
    SeenItems.of(user, item - 1, len(users), len(items) - 1).save(work)
    rows = read_items(run.step("validate_data") / table_file(ITEMS), run.config)
    make_catalogue(rows, items, run.config).save(work)


def _copy_encoder(run: Run, work: Path) -> None:
    """Copy towers, ids, vocabularies and column tables; `assemble` adds the run's settings."""
    shutil.copy2(run.step("train_towers") / TOWERS_FILE, work)
    for file in run.step("sample_negatives").iterdir():
        if file.name not in NOT_SERVED:
            shutil.copy2(file, work)
