"""Seconds and peak memory of each step by the number of clicks, over a generated log; Markdown rows
for docs/benchmarks.md.

The log has a tenth as many users and a hundredth as many items as clicks. Each step runs in a
process of its own. Its record is appended to benchmarks/results/scale.jsonl, from which the picture
docs/images/bench-scale.png is drawn. Without --clicks it is only drawn.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path

from benchmarks.records import short_code_version
from benchmarks.tables import CHECKOUT
from dssm_core.aliases import JSON
from dssm_core.config import read_config
from dssm_core.runs.json_lines import json_line, read_json_lines
from dssm_core.runs.run import create_run, open_run
from dssm_core.runs.table import STEPS
from dssm_core.runs.transaction import execute

RESULTS = CHECKOUT / "benchmarks" / "results" / "scale.jsonl"
PICTURE = CHECKOUT / "docs" / "images" / "bench-scale.png"
SAMPLED_EVERY_S = 0.1
USUAL = ("ingest_data", "validate_data", "split_by_time", "sample_negatives")
ONE_EPOCH = ("train.epochs=1", "train.batch_size=8192", "train.negatives=4096", "gate.floor=0")


def run_apart(root: Path, step: str) -> JSON:
    """Execute a step in a process of its own. Returns its seconds, the CPU seconds of all its
    threads, and its peak GiB: `peak_gib` with the pages of mapped files, which the system can drop
    at any time, and `own_gib` without them.
    """
    command = [sys.executable, "-m", "benchmarks.scale", "--run", str(root), "--steps", step]
    started = time.perf_counter()
    process = subprocess.Popen(command, cwd=CHECKOUT)
    own = 0
    while True:
        pid, status, usage = os.wait4(process.pid, os.WNOHANG)
        if pid:
            break
        own = max(own, _own_bytes(process.pid))
        time.sleep(SAMPLED_EVERY_S)
    return {
        "failed": bool(status),
        "seconds": round(time.perf_counter() - started, 1),
        "cpu_s": round(usage.ru_utime + usage.ru_stime, 1),
        "peak_gib": round(usage.ru_maxrss / 2**20, 2),
        "own_gib": round(own / 2**30, 2),
    }


def _own_bytes(pid: int) -> int:
    """Resident memory of a process without the pages of files (Linux); 0 if it has ended."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0
    kib = [int(line.split()[1]) for line in lines if line.startswith(("RssAnon:", "RssShmem:"))]
    return sum(kib) * 1024


def measure(clicks: int, steps: list[str], runs: Path, settings: list[str]) -> list[JSON]:
    """A record for each step over a log of so many clicks, up to the first one that fails."""
    size = {"users": max(1, clicks // 10), "items": max(1, clicks // 100), "clicks": clicks}
    source = [f"data.source.{name}={value}" for name, value in size.items()]
    overrides = [*source, *ONE_EPOCH, *settings]
    config = read_config(CHECKOUT / "configs" / "demo.yaml", overrides=overrides)
    run = create_run(config, runs, f"scale-{clicks}")
    records: list[JSON] = []
    for step in steps:
        measured = run_apart(run.root, step)
        records.append(
            {"clicks": clicks, "step": step, "code": short_code_version(), **measured}
            | {"settings": settings}
        )
        with RESULTS.open("a") as file:
            file.write(json_line(records[-1]))
        print(row(records[-1]), flush=True)
        if measured["failed"]:
            break
    return records


def row(record: JSON) -> str:
    """A record as a Markdown row."""
    times = [f"{record[name]:.0f}" for name in ("seconds", "cpu_s")]
    memory = [f"{record[name]:.2f}" for name in ("peak_gib", "own_gib")]
    values = [f"{record['clicks']:,}", record["step"], *times, *memory]
    return f"| {' | '.join(values)} |" + (" failed" if record["failed"] else "")


def draw(records: Iterable[JSON], file: Path) -> None:
    """CPU seconds and memory of the newest measurement of each step, by clicks."""
    from dssm_core.report.plots.canvas import WIDE, panels  # each measured step would import it

    newest = {(record["step"], record["clicks"]): record for record in records}
    with panels(file, 1, 2, WIDE) as ((seconds, memory),):
        for axes, name, label in (
            (seconds, "cpu_s", "CPU seconds"),
            (memory, "own_gib", "peak GiB"),
        ):
            for step in dict.fromkeys(step for step, _ in newest):
                points = sorted(
                    (clicks, record[name]) for (of, clicks), record in newest.items() if of == step
                )
                axes.plot(*zip(*points, strict=True), marker="o", label=step)
            axes.set(xscale="log", xlabel="clicks", ylabel=label)
        seconds.set_yscale("log")
        memory.set_ylim(0, None)
        seconds.legend(frameon=False)


def main() -> None:
    """Print a table, a row as soon as its step has ended, and draw all records."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clicks", type=int, nargs="*", default=[])
    parser.add_argument("--steps", nargs="+", default=list(USUAL), choices=list(STEPS))
    parser.add_argument("--runs", type=Path, help="folder of the runs; a temporary one if not set")
    parser.add_argument(
        "--set", dest="settings", nargs="*", default=[], help="settings such as seed=1"
    )
    parser.add_argument("--run", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.run:
        for step in args.steps:
            execute(open_run(args.run), step)
        return
    print("| clicks | step | s | CPU s | peak GiB | without mapped files |\n" + "|---" * 6 + "|")
    with tempfile.TemporaryDirectory() as scratch:
        for clicks in args.clicks:
            measure(clicks, args.steps, args.runs or Path(scratch), args.settings)
    draw(read_json_lines(RESULTS), PICTURE)


if __name__ == "__main__":
    main()
