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


def row(summary: dict[str, Any], peak_gib: float) -> str:
    """One test day as a Markdown row."""
    metrics, seconds = summary["metrics"], summary["seconds"]
    served, recent = metrics["served"], metrics["baselines"].get("recent_hot", {})
    windows = " / ".join(f"{value:.3f}" for value in recent.get("by_window", {}).values())
    cells = [
        summary["test_day"],
        f"**{served['recall@200']:.3f}** ({served['recall@200_low']:.3f}–{served['recall@200_high']:.3f})",
        f"{served['recall@20']:.3f}",
        f"{metrics['baselines']['hot']['recall@200']:.3f}",
        windows,
        f"{recent.get('recall@200', float('nan')):.3f} ({recent.get('window_h')} h)",
        f"{metrics['ceiling']['recall@200']:.3f}",
        f"{metrics['all']['served']['recall@200']:.3f}",
        f"{sum(seconds[step] for step in STEPS_OF_DATA):.0f}",
        f"{seconds['train_towers']:.0f}",
        f"{sum(seconds.values()):.0f}",
        f"{peak_gib:.1f}",
    ]
    return "| " + " | ".join(cells) + " |"


HEAD = """| test day | served recall@200 (95 %) | recall@20 | hot | recent_hot by window | recent_hot as chosen | ceiling | all items | \
ingest to split, s | train, s | whole run, s | peak GiB |
|---|---|---|---|---|---|---|---|---|---|---|---|"""


def main() -> None:
    """Run each test day and print its row as soon as it is there."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("config")
    parser.add_argument("--data", help="the log, as for dssm run")
    parser.add_argument("--test-day", nargs="*", default=[None], help="one or more days, YYYY-MM-DD")
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE", help="settings for every run")
    args = parser.parse_args()
    print(HEAD)
    with tempfile.TemporaryDirectory() as runs:
        for day in args.test_day:
            print(row(*measure(args.config, args.data, day, args.set, runs)), flush=True)


if __name__ == "__main__":
    main()
