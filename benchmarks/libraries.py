"""Training speed beside torch-rechub's DSSM and RecTools' SASRec: one machine, one log, the same
shapes, in one run.

The others live in an environment of their own (this project never depends on them):

    python3.11 -m venv OTHER && OTHER/bin/pip install torch==2.13.0 torch-rechub "rectools[torch]"
    python benchmarks/libraries.py --python OTHER/bin/python

Every contender trains through its own public API in a process of its own; only whole updates after
warm-up are counted. Data preparation is not. The log is made up in the shape of MovieLens-1M: 6,040
users, 3,416 items, 165 events a user.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

USERS, ITEMS, MEAN_LENGTH = 6040, 3416, 165
ID_DIM, HIDDEN, DIM, HISTORY, POSITIVES = 32, 128, 64, 50, 1024  # the DSSM's shape and batch
WIDTH, BLOCKS, HEADS, SESSION, SEQUENCES, DROPOUT = 128, 2, 2, 200, 64, 0.2  # SASRec's
DAY_MS = 86_400_000


class Enough(Exception):
    """Raised to leave a training loop that knows no number of steps."""


@dataclass
class Watch:
    """Counts what was trained on from the end of warm-up to the last of `steps` updates."""

    warm_up: int
    steps: int
    counts: list[float] = field(default_factory=list)
    times: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)

    def done(self, count: float) -> bool:
        """An update on `count` positives has ended; whether it was the last."""
        self.counts.append(count)
        self.times.append(time.perf_counter())
        self.cpu.append(time.process_time())
        return len(self.times) >= self.warm_up + self.steps

    def rates(self) -> dict[str, float]:
        """Positives a second, and a second of this process's CPU time, which others on the machine
        disturb less.
        """
        count = sum(self.counts[self.warm_up :])
        each = {"second": self.times, "cpu_second": self.cpu}
        return {per: count / (ends[-1] - ends[self.warm_up - 1]) for per, ends in each.items()}


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
    x, y = rows_of_positives((watch.warm_up + watch.steps + 2) * POSITIVES, rows_each)
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


def rectools(watch: Watch, workers: int) -> None:
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
        return Trainer(
            max_epochs=100, min_epochs=0, devices=1, accelerator="cpu", callbacks=[Count()], **quiet
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
    batches = {"batch_size": SEQUENCES, "dataloader_num_workers": workers}
    SASRecModel(loss="softmax", get_trainer_func=trainer, **shape, **batches).fit(
        Dataset.construct(frame)
    )


def ours(watch: Watch, shape: dict[str, Any]) -> None:
    """This project's Trainer as the step `train_towers` runs it, stopped from its logger."""
    from dssm_core.config import parse_config
    from dssm_core.training.trainer import LOG_EVERY, Trainer

    day = {"data": {"source": {"kind": "synthetic"}}, "split": {"test_day": "2020-01-07"}}
    train = {"epochs": 100, "device": "cpu", "checkpoint_every_s": 1e9}
    shape = shape | {
        "train": train | shape["train"],
        "features": {"activity": {"enabled": False}} | shape["features"],
    }
    config = parse_config({"name": "speed", **day, **shape})
    prepared = in_memory(config)

    def logger(values: dict[str, float], step: int) -> None:
        if (
            step
            and "train_loss" in values
            and watch.done(LOG_EVERY * trainer.objective.examples.count / trainer.steps_per_epoch)
        ):
            raise Enough

    with tempfile.TemporaryDirectory() as folder:
        samples = Path(folder)
        tabulate(config, prepared, samples)
        watch.warm_up, watch.steps = 1, max(1, watch.steps // LOG_EVERY)
        trainer = Trainer(
            config, prepared, samples, torch.device("cpu"), samples / "checkpoint.pt", logger
        )
        trainer.fit()


def in_memory(config: Any) -> Any:
    """The made-up log as `sample_negatives` would give it: evenly over six days, no columns beside
    ids.
    """
    from dssm_core.features.dataset import Prepared
    from dssm_core.features.inputs import ColumnTable
    from dssm_core.features.interactions import Interactions
    from dssm_core.features.schema import Schema, TowerColumns

    items, ptr = made_up()
    lengths = np.diff(ptr)
    user, place = (
        np.repeat(np.arange(1, USERS + 1), lengths),
        np.arange(len(items)) - ptr[:-1].repeat(lengths),
    )
    when = place * 6 * DAY_MS // lengths.repeat(lengths)
    order = np.argsort(when, kind="stable")
    user, item, when = (torch.from_numpy(column[order]) for column in (user, items, when))
    created = torch.zeros(ITEMS + 1, dtype=torch.int64)
    log = Interactions(
        user,
        item,
        when,
        torch.zeros(len(item), 0, dtype=torch.int64),
        created,
        torch.tensor([0, 6 * DAY_MS]),
    )

    def table(rows: int) -> ColumnTable:
        none = torch.zeros(rows, 0, dtype=torch.int64)
        return ColumnTable(none, none[:, :, None], none.float())

    schema = Schema(
        items=ITEMS + 1,
        users=USERS + 1,
        user=TowerColumns(categorical=(), multi=(), numeric=1),
        item=TowerColumns(categorical=(), multi=(), numeric=0),
    )
    return Prepared(log, table(USERS + 1), table(ITEMS + 1), torch.zeros(2, 0), schema)


def tabulate(config: Any, prepared: Any, folder: Path) -> None:
    """The samplers' tables, as `sample_negatives` writes them."""
    from dssm_core.features.tensors import save_tensors
    from dssm_core.sampling.sampler_tables import fit_sampler_tables

    save_tensors(folder / "sampler.safetensors", fit_sampler_tables(config, prepared.log, {}))


MLP = {
    "features": {
        "id_dim": ID_DIM,
        "user_id_dim": ID_DIM,
        "history": {"length": HISTORY, "pools": ["mean"]},
    },
    "tower": {"kind": "mlp", "hidden": [HIDDEN]},
    "model": {"dim": DIM},
}
SASREC = {
    "features": {"id_dim": WIDTH, "history": {"length": SESSION}},
    "tower": {
        "kind": "sequence",
        "blocks": BLOCKS,
        "heads": HEADS,
        "expansion": 1.0,
        "dropout": DROPOUT,
    },
    "item_tower": {"kind": "linear"},
    "model": {"dim": WIDTH},
}
TOKENS = (
    80 * SEQUENCES
)  # what RecTools' batch of sequences holds of tokens, on average over this log


def contenders() -> dict[str, tuple[str, str, Any]]:
    """Name → (whose: `ours`, or the other environment's), what it does, function of the watch."""
    uniform = {"sampler": {"kind": "uniform"}}

    def own(
        base: dict[str, Any], batch: int, loss: dict[str, Any], negatives: int = 1024, **more: Any
    ) -> Any:
        shape = base | uniform | {"loss": loss} | more
        return lambda watch: ours(
            watch, shape | {"train": {"batch_size": batch, "negatives": negatives}}
        )

    return {
        "rechub": (
            "other",
            "torch-rechub DSSM, pointwise, 3 negatives each",
            lambda watch: rechub(watch, False, 0),
        ),
        "rechub-workers": (
            "other",
            "the same, 2 loading processes more (their CPU time not counted)",
            lambda watch: rechub(watch, False, 2),
        ),
        "rechub-in-batch": (
            "other",
            "torch-rechub DSSM, in-batch negatives",
            lambda watch: rechub(watch, True, 0),
        ),
        "mlp-pointwise": (
            "ours",
            "`mlp`, bce, 3 negatives each, none of them the user's own",
            own(MLP, POSITIVES, {"kind": "bce", "log_q": False}, 3, sampler={"kind": "unseen"}),
        ),
        "mlp": (
            "ours",
            "`mlp`, sampled softmax, 1,024 shared negatives",
            own(MLP, POSITIVES, {"kind": "sampled_softmax"}),
        ),
        "mlp-in-batch": (
            "ours",
            "`mlp`, in-batch softmax, in-batch negatives",
            own(MLP, POSITIVES, {"kind": "in_batch_softmax"}, sampler={"kind": "in_batch"}),
        ),
        "rectools": ("other", "RecTools SASRec, full softmax", lambda watch: rectools(watch, 0)),
        "sequence": (
            "ours",
            "`sequence`, sampled softmax, 1,024 shared negatives",
            own(SASREC, TOKENS, {"kind": "sampled_softmax"}),
        ),
        "sequence-full": (
            "ours",
            "`sequence`, full softmax",
            own(SASREC, TOKENS, {"kind": "full_softmax"}),
        ),
    }


def run_one(name: str, warm_up: int, steps: int, threads: int) -> None:
    """Train one contender in this process; its rates as the last line of stdout."""
    torch.set_num_threads(threads)
    watch = Watch(warm_up, steps)
    with suppress(Enough):
        contenders()[name][2](watch)
    print(json.dumps(watch.rates()))


def measure(name: str, python: str, args: argparse.Namespace) -> dict[str, float] | None:
    """What `run_one` prints of a contender in a process of its own; None where it failed (its error
    is shown).
    """
    command = [
        python,
        __file__,
        "--contender",
        name,
        "--steps",
        str(args.steps),
        "--threads",
        str(args.threads),
    ]
    threads = {
        "OMP_NUM_THREADS": str(args.threads),
        "MKL_NUM_THREADS": str(args.threads),
        "OMP_WAIT_POLICY": "passive",
    }
    done = subprocess.run(command, env={**os.environ, **threads}, capture_output=True, text=True)
    if done.returncode:
        print(f"{name} failed:\n{done.stderr[-2000:]}", file=sys.stderr)
        return None
    rates: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return rates


def main() -> None:
    """Measure each contender and print Markdown rows."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--python", help="the interpreter of the environment that holds torch-rechub and RecTools"
    )
    parser.add_argument(
        "--only", nargs="*", choices=list(contenders()), help="which contenders (all)"
    )
    parser.add_argument(
        "--steps",
        type=int,
        default=40,
        help="updates that are timed, after 5 (ours: 20) to warm up",
    )
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--contender", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.contender:
        run_one(args.contender, 5, args.steps, args.threads)
        return
    print("| who | positives/s | a CPU second |\n|---|---|---|", flush=True)
    for name, (whose, what, _) in contenders().items():
        python = sys.executable if whose == "ours" else args.python
        if python and (not args.only or name in args.only):
            rates = measure(name, python, args)
            cells = [f"{rate:,.0f}" for rate in rates.values()] if rates else ["failed"] * 2
            print(f"| {what} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
