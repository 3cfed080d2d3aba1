"""Training speed beside torch-rechub's DSSM and RecTools' SASRec: one machine, one log, the same
shapes, in one run.

The others live in an environment of their own (this project never depends on them):

    python3.11 -m venv OTHER && OTHER/bin/pip install torch==2.13.0 torch-rechub "rectools[torch]"
    python -m benchmarks.libraries --python OTHER/bin/python

Every contender trains through its own public API in a process of its own; only whole updates after
warm-up are counted. Data preparation is not. A tenth as many updates are then profiled: the last
column is the time that matrix products and attention take in an update, divided by the time of an
update without the profiler.
The log is made up in the shape of MovieLens-1M: 6,040 users, 3,416 items, 165 events a user.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.other_libraries import (
    BLOCKS,
    DAY_MS,
    DIM,
    DROPOUT,
    HEADS,
    HIDDEN,
    HISTORY,
    ID_DIM,
    ITEMS,
    POSITIVES,
    SEQUENCES,
    SESSION,
    USERS,
    WIDTH,
    Enough,
    Watch,
    made_up,
    rechub,
    rectools,
)


def ours(watch: Watch, shape: dict[str, Any], device: str) -> None:
    """This project's Trainer as the step `train_towers` runs it, stopped from its logger."""
    from dssm_core.config import parse_config
    from dssm_core.training.trainer import LOG_EVERY, Trainer

    day = {"data": {"source": {"kind": "synthetic"}}, "split": {"test_day": "2020-01-07"}}
    train = {"epochs": 100, "device": device, "checkpoint_every_s": 1e9}
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
            config, prepared, samples, torch.device(device), samples / "checkpoint.pt", logger
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


WARM_UP = 5  # updates
CHECKOUT = Path(__file__).resolve().parent.parent
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
CELLS = "{second:,.0f} | {cpu_second:,.0f} | {share:.0%}"
TOKENS = 80  # of a sequence in RecTools' batch, on average over this log


def contenders(device: str, sequences: int) -> dict[str, tuple[str, str, Any]]:
    """Name → (whose: `ours`, or the other environment's), what it does, function of the watch.

    device: cpu or cuda; torch-rechub always takes the CPU here. sequences: of RecTools' batch;
    ours has as many positives as these hold on average over this log.
    """
    uniform = {"sampler": {"kind": "uniform"}}

    def own(
        base: dict[str, Any], batch: int, loss: dict[str, Any], negatives: int = 1024, **more: Any
    ) -> Any:
        shape = base | uniform | {"loss": loss} | more
        return lambda watch: ours(
            watch, shape | {"train": {"batch_size": batch, "negatives": negatives}}, device
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
        "rectools": (
            "other",
            "RecTools SASRec, full softmax",
            lambda watch: rectools(watch, 0, device, sequences),
        ),
        "sequence": (
            "ours",
            "`sequence`, sampled softmax, 1,024 shared negatives",
            own(SASREC, TOKENS * sequences, {"kind": "sampled_softmax"}),
        ),
        "sequence-full": (
            "ours",
            "`sequence`, full softmax",
            own(SASREC, TOKENS * sequences, {"kind": "full_softmax"}),
        ),
    }


def run_one(args: argparse.Namespace) -> None:
    """Train one contender in this process; its rates as the last line of stdout."""
    torch.set_num_threads(args.threads)
    watch = Watch(WARM_UP, args.steps)
    with suppress(Enough):
        contenders(args.device, args.sequences)[args.contender][2](watch)
    print(json.dumps(watch.rates()))


def measure(name: str, python: str, args: argparse.Namespace) -> dict[str, float] | None:
    """What `run_one` prints of a contender in a process of its own; None where it failed (its error
    is shown).
    """
    command = [
        python,
        "-m",
        "benchmarks.libraries",
        "--contender",
        name,
        "--steps",
        str(args.steps),
        "--threads",
        str(args.threads),
        "--device",
        args.device,
        "--sequences",
        str(args.sequences),
    ]
    threads = {
        "OMP_NUM_THREADS": str(args.threads),
        "MKL_NUM_THREADS": str(args.threads),
        "OMP_WAIT_POLICY": "passive",
    }
    done = subprocess.run(
        command, env={**os.environ, **threads}, cwd=CHECKOUT, capture_output=True, text=True
    )
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
        "--only",
        nargs="*",
        choices=list(contenders("cpu", SEQUENCES)),
        help="which contenders (all)",
    )
    parser.add_argument(
        "--steps",
        type=int,
        default=40,
        help="updates that are timed, after 5 (ours: 20) to warm up",
    )
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument(
        "--sequences", type=int, default=SEQUENCES, help="sequences in a batch of the transformers"
    )
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--contender", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.contender:
        run_one(args)
        return
    print("| who | positives/s | a CPU second | matrix products |\n|---|---|---|---|", flush=True)
    for name, (whose, what, _) in contenders(args.device, args.sequences).items():
        python = sys.executable if whose == "ours" else args.python
        if python and (not args.only or name in args.only):
            rates = measure(name, python, args)
            print(f"| {what} | {CELLS.format(**rates) if rates else 'failed | | '} |", flush=True)


if __name__ == "__main__":
    main()
