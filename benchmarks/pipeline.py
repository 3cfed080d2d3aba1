"""Whole runs, one process each: recall with its interval, seconds a step, peak memory; Markdown rows for docs/benchmarks.md."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from typing import Any

STEPS_OF_DATA = ("ingest_data", "validate_data", "split_by_time")
STEPS_OF_MODEL = ("sample_negatives", "train_towers", "recall_gate")


def measure(config: str, data: str | None, day: str | None, settings: list[str], runs: str) -> tuple[dict[str, Any], float]:
    """The summary of one `dssm run` and the peak resident memory of its process, GiB."""
    command = [sys.executable, "-m", "dssm_core.cli", "run", config, "--json", "--runs", runs]
    command += ["--data", data] if data else []
    command += ["--test-day", day] if day else []
    command += [part for setting in settings for part in ("--set", setting)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    lines = process.stdout.read().splitlines()
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        sys.exit(f"{' '.join(command)} failed")
    return json.loads(lines[-1]), usage.ru_maxrss / 2**20


def quality(summary: dict[str, Any]) -> str:
    """One test day's recalls as a Markdown row; (a baseline's) stands beside what it is to be compared with."""
    metrics = summary["metrics"]
    served, baselines, everyone = metrics["served"], metrics["baselines"], metrics["all"]
    recent = baselines["recent_hot"]
    return markdown(
        summary["test_day"],
        f"**{served['recall@200']:.3f}** ({served['recall@200_low']:.3f}–{served['recall@200_high']:.3f})",
        f"{served['recall@20']:.3f}",
        f"{baselines['hot']['recall@200']:.3f}",
        " / ".join(f"{value:.3f}" for value in recent["by_window"].values()),
        f"{recent['recall@200']:.3f} ({recent['window_h']} h)",
        f"{metrics['ceiling']['recall@200']:.3f}",
        f"{everyone['served']['recall@200']:.3f} ({everyone['baselines']['recent_hot']['recall@200']:.3f})",
    )


def cost(summary: dict[str, Any], peak_gib: float) -> str:
    """One test day's seconds and memory as a Markdown row."""
    seconds = summary["seconds"]
    steps = [sum(seconds[step] for step in STEPS_OF_DATA), *(seconds[step] for step in STEPS_OF_MODEL), sum(seconds.values())]
    return markdown(summary["test_day"], *(f"{value:.0f}" for value in steps), f"{peak_gib:.1f}")


def markdown(*cells: str) -> str:
    """A row of a table."""
    return f"| {' | '.join(cells)} |"


def head(*titles: str) -> str:
    """A table's head and the line under it."""
    return f"{markdown(*titles)}\n{'|---' * len(titles)}|"


QUALITY = head(
    "test day",
    "served recall@200 (95 %)",
    "recall@20",
    "hot, six days",
    "recent_hot of 1 / 3 / 6 / 24 h",
    "recent_hot as chosen",
    "ceiling",
    "all users and articles (recent_hot)",
)
COST = head("test day", "ingest to split, s", "sample_negatives, s", "train, s", "gate, s", "whole run, s", "peak GiB")


def main() -> None:
    """Run each test day, print its recalls as soon as they are there, and seconds and memory of all at the end."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("config")
    parser.add_argument("--data", help="the log, as for dssm run")
    parser.add_argument("--test-day", nargs="*", default=[None], help="one or more days, YYYY-MM-DD")
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE", help="settings for every run")
    args = parser.parse_args()
    print(QUALITY, flush=True)
    costs = []
    with tempfile.TemporaryDirectory() as runs:
        for day in args.test_day:
            summary, peak_gib = measure(args.config, args.data, day, args.set, runs)
            print(quality(summary), flush=True)
            costs.append(cost(summary, peak_gib))
    print("", COST, *costs, sep="\n")


if __name__ == "__main__":
    main()
