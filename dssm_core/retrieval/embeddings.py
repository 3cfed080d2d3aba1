"""The steps `export_embeddings` and `build_index`: every user and item as of the cutoff, and the
index that is served.
"""

from __future__ import annotations

import logging
import shutil
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from dssm_core.aliases import Floats
from dssm_core.columns import HOUR_MS
from dssm_core.config import Config
from dssm_core.features.dataset import Prepared, bucket_times, load_prepared
from dssm_core.features.events import training_events
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
from dssm_core.retrieval.encoder import load_towers, users_at_once
from dssm_core.retrieval.new_users import HotList
from dssm_core.runs.layout import (
    ITEM_EMBEDDINGS_FILE,
    LOG_FILE,
    MANIFEST_FILE,
    SAMPLER_FILE,
    TOWERS_FILE,
    USER_EMBEDDINGS_FILE,
)
from dssm_core.runs.manifest import Outcome
from dssm_core.runs.run import Run

log = logging.getLogger(__name__)

AT_ONCE = 8192  # items embedded at a time


def export_embeddings(run: Run, work: Path) -> Outcome:
    """Step function. Writes user_embeddings.npy (row = code, 0 unknown), item_embeddings.npy (row =
    code - 1), and all else that encoding a user takes, so that this folder and the index together
    are what is served; hot.parquet where the unknown user's vector was never trained (see
    new_users.py).
    """
    prepared = load_prepared(run.step("sample_negatives"))
    model = load_towers(run.step("train_towers"), run.config, prepared)
    items = embed_items(model, prepared, run.config)
    users = embed_users(model, prepared, run.config)
    np.save(work / ITEM_EMBEDDINGS_FILE, items)
    np.save(work / USER_EMBEDDINGS_FILE, users)
    _copy_encoder(run, work)
    if (listed := hot_list(prepared.log, run.config)) is not None:
        listed.save(work)
    info = {"dim": items.shape[1], "newcomers": "context" if listed is None else "hot"}
    return Outcome({"users": len(users) - 1, "items": len(items)}, info)


@torch.no_grad()
def embed_items(model: TwoTower, prepared: Prepared, config: Config, first: int = 1) -> Floats:
    """Items from code `first` on as of the window's end; one that the towers never saw by its
    features. → [N, D], row = code - first.
    """
    log, table, scale = prepared.log, prepared.items, prepared.scale

    def embed(part: Tensor) -> Tensor:
        inputs = item_inputs(log, table, part, log.end, config.features, scale)
        return model.items(inputs._replace(item=learned(part, prepared.schema.items)))

    return torch.cat(
        [embed(part) for part in torch.arange(first, len(log.created)).split(AT_ONCE)]
    ).numpy()


def learned(codes: Tensor, size: int) -> Tensor:
    """The codes that the towers have learned something of, those below `size`; 0, the unknown one,
    for ids that came since. [n] → [n].
    """
    return torch.where(codes < size, codes, 0)


@torch.no_grad()
def embed_users(model: TwoTower, prepared: Prepared, config: Config) -> Floats:
    """Every known user as of the window's end, after the unknown one. → [U + 1, D], row = code."""
    log, table = prepared.log, prepared.users
    codes = torch.arange(len(table.numeric))

    def embed(part: Tensor) -> Tensor:
        return model.users(
            users_as_of(log, table, part, torch.full_like(part, log.end), config.features)
        )

    return torch.cat([embed(part) for part in codes.split(users_at_once(config.features))]).numpy()


def hot_list(log: Interactions, config: Config) -> HotList | None:
    """The list (see `hottest`) of a model whose tower has seen no empty history; None where it has
    seen some.
    """
    return None if trained_on_empty_histories(log, config) else hottest(log, config)


def hottest(log: Interactions, config: Config) -> HotList:
    """What is most clicked at the log's end.

    As the baselines: `recent_hot` as of then, or `hot` where the split has no days.
    """
    clicks = Clicks(log.user.numpy(), log.item.numpy() - 1, log.time.numpy(), len(log.created) - 1)
    if config.split.by_time:
        rows, info = hottest_recently(clicks, log.end, HOT_WINDOWS_H, HOT_PLACES)
        clicks = clicks.between(log.end - info["window_h"] * HOUR_MS, log.end)
    else:
        rows = hottest_overall(clicks, log.end)
    shares = clicks.counts() / max(1, len(clicks.items))
    return HotList(rows, shares[rows].astype(np.float32))


def trained_on_empty_histories(log: Interactions, config: Config) -> bool:
    """Whether training has shown the user tower empty histories beside others."""
    if config.features.history.length == 0:
        return False
    if not config.features.activity.enabled:
        return config.train.target == "rest"
    events = training_events(log, bucket_times(config, log))
    return bool((log.history(events.user, events.as_of, 1)[0] == 0).any())


def _copy_encoder(run: Run, work: Path) -> None:
    """Towers, ids, vocabularies and static tables beside the embeddings; the run's settings join
    them in its bundle.
    """
    shutil.copy2(run.step("train_towers") / TOWERS_FILE, work)
    for file in run.step("sample_negatives").iterdir():
        if file.name not in (MANIFEST_FILE, LOG_FILE, SAMPLER_FILE):
            shutil.copy2(file, work)
