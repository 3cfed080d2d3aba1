"""What `train.start_from: champion` saves on Globo; Markdown rows for docs/benchmarks.md:
`python -m benchmarks.start_from --data FOLDER`.

The model of each test day is trained from the seed, registered and made champion. The model of the
next day is also trained from its weights, for several numbers of epochs. Seconds are CPU seconds of
the step `train_towers` with one thread, so that other processes do not count.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path

from benchmarks.tables import CHECKOUT
from dssm_core.config import Config, read_config
from dssm_core.registry.versions import CHAMPION, open_model
from dssm_core.runs.files import digest
from dssm_core.runs.gate_report import read_gate_report
from dssm_core.runs.run import Run, create_run, open_run
from dssm_core.runs.table import STEPS
from dssm_core.runs.transaction import execute

CONFIG = CHECKOUT / "configs" / "globo.yaml"
DAYS = ("2017-10-07", "2017-10-08", "2017-10-09", "2017-10-10")
SHORT = tuple((f"train.epochs={number}", "train.max_epochs=null") for number in (1, 2))
STARTS = {"seed": "train.start_from=null", "champion": "train.start_from=champion"}


def executed(config: Config, runs: Path, last: str) -> Run:
    """A run up to the step `last`."""
    run = create_run(config, runs, f"start-{digest(config.deciding())[:10]}")
    for step in list(STEPS)[: list(STEPS).index(last) + 1]:
        execute(run, step)
    return run


def train_apart(config: Config, runs: Path) -> float:
    """Train in a process of one thread. Returns its CPU seconds."""
    run = executed(config, runs, "sample_negatives")
    command = [sys.executable, "-m", "benchmarks.start_from", "--train", str(run.root)]
    process = subprocess.Popen(command, cwd=CHECKOUT, env={**os.environ, "OMP_NUM_THREADS": "1"})
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"{' '.join(command)} failed")
    return usage.ru_utime + usage.ru_stime


def measure(day: str, start: str, settings: Sequence[str], data: Path, runs: Path) -> str:
    """A Markdown row of one training on a day."""
    overrides = (f'split.test_day="{day}"', "gate.floor=0", STARTS[start], *settings)
    config = read_config(CONFIG, data, overrides)
    seconds = train_apart(config, runs)
    run = executed(config, runs, "recall_gate")
    served = read_gate_report(run).metrics.served
    info = run.need("train_towers").info
    validation = info[f"validation_{config.train.chosen_by}"]
    epochs = f"{config.train.last_epoch} | {info['best_epoch']}"
    recall = f"{served.value('recall@200'):.3f}"
    return f"| {day} | {start} | {epochs} | {validation:.3f} | {seconds:.0f} | {recall} |"


def make_champion(day: str, data: Path, runs: Path) -> None:
    """Register the model of a day that was trained from the seed."""
    overrides = (f'split.test_day="{day}"', "gate.floor=0", STARTS["seed"])
    run = executed(read_config(CONFIG, data, overrides), runs, "register_model")
    made = run.need("register_model").info
    open_model(str(made["model"]), runs).point(CHAMPION, str(made["version"]))


def rows(days: Iterable[str], data: Path, runs: Path) -> Iterable[str]:
    """A row for each training, as soon as it has ended."""
    for number, day in enumerate(days):
        yield measure(day, "seed", (), data, runs)
        if number:
            for settings in SHORT:
                for start in STARTS:
                    yield measure(day, start, settings, data, runs)
            yield measure(day, "champion", (), data, runs)
        make_champion(day, data, runs)


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, help="the folder of the hourly files")
    parser.add_argument("--days", nargs="+", default=list(DAYS), help="test days, one by one")
    parser.add_argument("--runs", type=Path, help="folder of the runs; a temporary one if not set")
    parser.add_argument("--train", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.train:
        execute(open_run(args.train), "train_towers")
        return
    heads = ("day", "starts from", "epochs at most", "best epoch", "validation recall@200")
    heads += ("CPU s", "served recall@200")
    print(f"| {' | '.join(heads)} |\n" + "|---" * len(heads) + "|")
    with tempfile.TemporaryDirectory() as scratch:
        for row in rows(args.days, args.data, args.runs or Path(scratch)):
            print(row, flush=True)


if __name__ == "__main__":
    main()
