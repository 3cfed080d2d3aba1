"""torch-rechub's DSSM and RecTools' SASRec, trained through their own public API on a made-up log.

Both are imported when they are used: they live in an environment of their own (libraries.py).
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from torch.profiler import ProfilerActivity, profile

USERS, ITEMS, MEAN_LENGTH = 6040, 3416, 165
ID_DIM, HIDDEN, DIM, HISTORY, POSITIVES = 32, 128, 64, 50, 1024  # the DSSM's shape and batch
WIDTH, BLOCKS, HEADS, SESSION, SEQUENCES, DROPOUT = 128, 2, 2, 200, 64, 0.2  # SASRec's
DAY_MS = 86_400_000
PRODUCTS = {
    "aten::mm",
    "aten::addmm",
    "aten::bmm",
    "aten::baddbmm",
    "aten::_scaled_dot_product_flash_attention_for_cpu",
    "aten::_scaled_dot_product_flash_attention_for_cpu_backward",
}


class Enough(Exception):
    """Raised to leave a training loop that knows no number of steps."""


@dataclass
class Watch:
    """Counts what was trained on from the end of warm-up to the last of `steps` updates, then
    profiles a tenth as many.
    """

    warm_up: int
    steps: int
    profiler: profile = field(default_factory=lambda: profile(activities=[ProfilerActivity.CPU]))
    counts: list[float] = field(default_factory=list)
    times: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)

    @property
    def updates(self) -> int:
        """All updates: to warm up, timed and profiled."""
        return self.warm_up + self.steps + self.profiled

    @property
    def profiled(self) -> int:
        """A profile of more is too large: loading a batch of torch-rechub calls an op a row."""
        return max(1, self.steps // 10)

    def done(self, count: float) -> bool:
        """An update on `count` positives has ended; whether it was the last."""
        self.counts.append(count)
        self.times.append(time.perf_counter())
        self.cpu.append(time.process_time())
        if len(self.times) == self.warm_up + self.steps:
            self.profiler.start()
        last = len(self.times) == self.updates
        if last:
            self.profiler.stop()
        return last

    def rates(self) -> dict[str, float]:
        """Positives a second, and a second of this process's CPU time, which others on the machine
        disturb less; and the share of the time that matrix products and attention take.
        """
        last = self.warm_up + self.steps - 1
        count = sum(self.counts[self.warm_up : last + 1])
        seconds, cpu = (ends[last] - ends[self.warm_up - 1] for ends in (self.times, self.cpu))
        ops = self.profiler.key_averages()
        products_us = sum(op.self_cpu_time_total for op in ops if op.key in PRODUCTS)
        share = (products_us / 1e6 / self.profiled) / (seconds / self.steps)
        return {"second": count / seconds, "cpu_second": count / cpu, "share": share}


def made_up() -> tuple[np.ndarray, np.ndarray]:
    """Users' sequences side by side: items [events], codes from 1, Zipf-like; ptr [users + 1]."""
    rng = np.random.default_rng(0)
    lengths = np.clip(rng.lognormal(np.log(96), 1.0, USERS), 18, 2300).astype(np.int64)
    lengths = np.maximum(18, lengths * MEAN_LENGTH // int(lengths.mean()))
    share = 1 / np.arange(10, ITEMS + 10) ** 0.8
    return rng.choice(ITEMS, lengths.sum(), p=share / share.sum()) + 1, np.concatenate(
        [[0], np.cumsum(lengths)]
    )


def rechub(watch: Watch, in_batch: bool, workers: int) -> None:
    """torch-rechub's DSSM by MatchTrainer: user id and mean-pooled history against item id.

    Pointwise with 3 negatives a positive, as in its own examples, or against all items of the
    batch.
    """
    from torch_rechub.basic.features import SequenceFeature, SparseFeature
    from torch_rechub.models.matching import DSSM
    from torch_rechub.trainers import MatchTrainer
    from torch_rechub.utils.data import MatchDataGenerator

    rows_each = 1 if in_batch else 4
    x, y = rows_of_positives((watch.updates + 1) * POSITIVES, rows_each)
    user = [
        SparseFeature("user_id", USERS + 1, ID_DIM),
        SequenceFeature("hist", ITEMS + 1, ID_DIM, pooling="mean", shared_with="item_id"),
    ]
    item = [SparseFeature("item_id", ITEMS + 1, ID_DIM)]
    tower = {"dims": [HIDDEN, DIM], "activation": "relu"}
    trainer = MatchTrainer(DSSM(user, item, tower, tower), mode=0, in_batch_neg=in_batch, n_epoch=1)
    few = {name: column[:8] for name, column in x.items()}
    loader, _, _ = MatchDataGenerator(x, y).generate_dataloader(
        few, few, POSITIVES * rows_each, num_workers=workers
    )

    def watched() -> Any:
        for place, batch in enumerate(loader):
            if place and watch.done(POSITIVES):  # asking for the next batch ends an update
                raise Enough
            yield batch

    trainer.train_one_epoch(watched())


def rows_of_positives(positives: int, rows_each: int) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """torch-rechub's table: a row a positive (the newest 50 items before it, padded before) and
    rows of drawn negatives.
    """
    rng, (items, ptr) = np.random.default_rng(1), made_up()
    user = np.searchsorted(ptr, np.arange(len(items)), side="right")
    place = rng.choice(np.flatnonzero(np.arange(len(items)) > ptr[user - 1]), positives)
    back = place[:, None] - np.arange(HISTORY, 0, -1)  # [positives, HISTORY]
    history = np.where(back >= ptr[user[place] - 1, None], items[np.maximum(back, 0)], 0)
    item = np.stack(
        [items[place], *rng.integers(1, ITEMS + 1, (rows_each - 1, positives))], axis=1
    ).ravel()
    label = np.tile([1] + [0] * (rows_each - 1), positives)
    return {
        "user_id": user[place].repeat(rows_each),
        "hist": history.repeat(rows_each, 0),
        "item_id": item,
    }, label


def rectools(watch: Watch, workers: int, device: str, sequences: int) -> None:
    """RecTools' SASRecModel with its full softmax; tokens are the places that have a target,
    padding is none.
    """
    import pandas as pd
    from pytorch_lightning import Callback, Trainer
    from rectools import Columns
    from rectools.dataset import Dataset
    from rectools.models import SASRecModel

    class Count(Callback):
        def on_train_batch_end(
            self, trainer: Any, module: Any, outputs: Any, batch: Any, place: int
        ) -> None:
            if watch.done(int((batch["y"] != 0).sum())):
                trainer.should_stop = True

    def trainer() -> Any:
        quiet = {
            "enable_progress_bar": False,
            "enable_model_summary": False,
            "enable_checkpointing": False,
            "logger": False,
        }
        accelerator = {"cpu": "cpu", "cuda": "gpu"}[device]
        return Trainer(
            max_epochs=100,
            min_epochs=0,
            devices=1,
            accelerator=accelerator,
            callbacks=[Count()],
            **quiet,
        )

    items, ptr = made_up()
    user = np.repeat(np.arange(USERS), np.diff(ptr))
    when = pd.Timestamp("2020-01-01") + pd.to_timedelta(np.arange(len(items)), unit="s")
    frame = pd.DataFrame(
        {Columns.User: user, Columns.Item: items, Columns.Datetime: when, Columns.Weight: 1.0}
    )
    shape = {
        "n_blocks": BLOCKS,
        "n_heads": HEADS,
        "n_factors": WIDTH,
        "session_max_len": SESSION,
        "dropout_rate": DROPOUT,
    }
    batches = {"batch_size": sequences, "dataloader_num_workers": workers}
    SASRecModel(loss="softmax", get_trainer_func=trainer, **shape, **batches).fit(
        Dataset.construct(frame)
    )
