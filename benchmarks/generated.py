"""What the benchmarks on generated logs share: a run up to the gate, and a table of seeds."""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from dssm_core.config import Config
from dssm_core.runs.gate_report import GateReport, read_gate_report
from dssm_core.runs.run import create_run
from dssm_core.runs.table import STEPS
from dssm_core.runs.transaction import execute


def judged(config: Config, runs: Path, name: str) -> GateReport:
    """The gate's report of a run. Nothing is logged before the gate."""
    run = create_run(config, runs, name)
    for step in list(STEPS)[: list(STEPS).index("recall_gate") + 1]:
        if step != "log_to_mlflow":
            execute(run, step)
    return read_gate_report(run)


def print_seeds(
    about: str | None,
    heads: Sequence[str],
    write_log: Callable[[Path, int, int], None],
    row: Callable[[Path, int], str],
) -> None:
    """Print a Markdown table with a row for each seed, which is another log and other trainings.

    about: the help of the command. write_log: called with a folder, the number of users and the
    seed; row: called with the folder and the seed.
    """
    parser = argparse.ArgumentParser(description=about)
    parser.add_argument("--users", type=int, default=600)
    parser.add_argument("--seeds", type=int, default=3, help="number of logs and trainings")
    args = parser.parse_args()
    print(f"| {' | '.join(heads)} |\n" + "|---" * len(heads) + "|")
    with tempfile.TemporaryDirectory() as scratch:
        for seed in range(args.seeds):
            folder = Path(scratch) / str(seed)
            folder.mkdir()
            write_log(folder, args.users, seed)
            print(row(folder, seed), flush=True)
