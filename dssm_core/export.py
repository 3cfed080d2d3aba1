"""The steps `export_embeddings` and `build_index`: every user and item as of the cutoff, and the index that is served."""

from __future__ import annotations

import logging
import shutil
import time
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from torch import Tensor

from dssm_core import families
from dssm_core.artifacts import Run
from dssm_core.baselines.hot import Hot
from dssm_core.baselines.protocol import Clicks
from dssm_core.baselines.recent_hot import RecentHot
from dssm_core.batches import training_events
from dssm_core.config import Config
from dssm_core.encoder import load_towers, users_at_once
from dssm_core.features import Log, item_inputs, users_as_of
from dssm_core.indexes import INDEXES, measure
from dssm_core.newcomers import FILE
from dssm_core.prepare import Prepared, bucket_times, load_prepared
from dssm_core.schema import HOUR_MS
from dssm_core.steps import Outcome
from dssm_core.two_tower import TwoTower

log = logging.getLogger(__name__)

AT_ONCE = 8192  # items embedded at a time
TOO_FEW = "index %s finds %.1f %% of exact search's %d items (%d users asked): raise its settings, or set index.kind to auto or faiss_flat"

Floats = npt.NDArray[np.float32]


def export(run: Run, work: Path) -> Outcome:
    """Step function. Writes user_embeddings.npy (row = code, 0 unknown), item_embeddings.npy (row = code - 1), and all
    else that encoding a user takes, so that this folder and the index together are what is served; hot.parquet where the
    unknown user's vector was never trained (see newcomers.py).
    """
    prepared = load_prepared(run.step("sample_negatives"))
    model = load_towers(run.step("train_towers"), run.config, prepared)
    items = embed_items(model, prepared, run.config)
    users = embed_users(model, prepared, run.config)
    np.save(work / "item_embeddings.npy", items)
    np.save(work / "user_embeddings.npy", users)
    _copy_encoder(run, work)
    if (listed := hot_list(prepared.log, run.config)) is not None:
        listed.to_parquet(work / FILE)
    info = {"dim": items.shape[1], "newcomers": "context" if listed is None else "hot"}
    return Outcome({"users": len(users) - 1, "items": len(items)}, info)


@torch.no_grad()
def embed_items(model: TwoTower, prepared: Prepared, config: Config) -> Floats:
    """Every known item as of the window's end. → [N, D], row = code - 1."""
    log, table, scale = prepared.log, prepared.items, prepared.scale
    codes = torch.arange(1, len(log.created))
    parts = [model.items(item_inputs(log, table, part, log.end, config.features, scale)) for part in codes.split(AT_ONCE)]
    return torch.cat(parts).numpy()


@torch.no_grad()
def embed_users(model: TwoTower, prepared: Prepared, config: Config) -> Floats:
    """Every known user as of the window's end, after the unknown one. → [U + 1, D], row = code."""
    log, table = prepared.log, prepared.users
    codes = torch.arange(len(table.numeric))

    def embed(part: Tensor) -> Tensor:
        return model.users(users_as_of(log, table, part, torch.full_like(part, log.end), config.features))

    return torch.cat([embed(part) for part in codes.split(users_at_once(config.features))]).numpy()


def hot_list(log: Log, config: Config) -> pd.DataFrame | None:
    """The list of a model whose tower has seen no empty history: columns row and score, best first; None where it has seen some.

    As the baselines: `recent_hot` as of the window's end, or `hot` where the split has no days.
    """
    if knows_newcomers(log, config):
        return None
    clicks = Clicks(log.user.numpy(), log.item.numpy() - 1, log.time.numpy(), len(log.created) - 1)
    if config.split.by_time:
        fitted = RecentHot().fit(clicks, log.end)
        clicks = clicks.between(log.end - fitted.info["window_h"] * HOUR_MS, log.end)
    else:
        fitted = Hot().fit(clicks, log.end)
    shares = clicks.counts() / max(1, len(clicks.items))
    return pd.DataFrame({"row": fitted.rows, "score": shares[fitted.rows].astype(np.float32)})


def knows_newcomers(log: Log, config: Config) -> bool:
    """Whether training has shown the user tower empty histories beside others."""
    if config.features.history.length == 0:
        return False
    if not config.features.activity.enabled:
        return config.train.target == "rest"
    events = training_events(log, bucket_times(config, log))
    return bool((log.history(events.user, events.as_of, 1)[0] == 0).any())


def build_index(run: Run, work: Path) -> Outcome:
    """Step function. Builds and saves the configured index over the exported items.

    info: what was built, and its recall@k and speed, measured on exported users against exact search.
    """
    folder, kind = run.step("export_embeddings"), run.config.index.kind
    vectors: Floats = np.load(folder / "item_embeddings.npy")
    users: Floats = np.load(folder / "user_embeddings.npy", mmap_mode="r")
    member = families.build(INDEXES, run.config.index)
    started = time.perf_counter()
    index = member.build(vectors, run.config.seed, users[1:])  # the unknown user asks like nobody
    built = time.perf_counter() - started
    member.save(index, work)
    asked = measure.sample(vectors, users[1:], measure.K, measure.QUERIES, run.config.seed)
    recall, rate = asked.measure(member, index)
    if recall < measure.ENOUGH:
        log.warning(TOO_FEW, kind, 100 * recall, measure.K, len(asked.queries))
    measured = {f"recall@{measure.K}": round(recall, 4), "queries_per_s": round(rate, 1), "queries": len(asked.queries)}
    return Outcome({"items": len(vectors)}, {"kind": kind, **member.describe(index), "build_seconds": round(built, 3), **measured})


def _copy_encoder(run: Run, work: Path) -> None:
    """Towers, ids, vocabularies and static tables beside the embeddings; the run's settings join them in its bundle."""
    shutil.copy2(run.step("train_towers") / "towers.safetensors", work)
    for file in run.step("sample_negatives").iterdir():
        if file.name not in ("manifest.json", "log.safetensors", "sampler.safetensors"):
            shutil.copy2(file, work)
