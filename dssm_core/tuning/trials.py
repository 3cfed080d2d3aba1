"""A trial of a sweep: a combination of settings and the run that judges it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dssm_core.aliases import JSON
from dssm_core.errors import DataError
from dssm_core.gate.rules import judged
from dssm_core.runs.gate_report import GateReport, Scores, find_gate_report
from dssm_core.runs.run import Run
from dssm_core.tuning.axes import Values

LAST_STEP = "recall_gate"
SHORT_KEYS = {
    "tower": "tower.kind",
    "loss": "loss.kind",
    "sampler": "sampler.kind",
    "index": "index.kind",
}


@dataclass(frozen=True)
class Combination:
    """A value for each axis of a sweep."""

    values: Values

    @property
    def label(self) -> str:
        """For people: `loss=bce, train.epochs=2`."""
        return ", ".join(
            f"{key}={value if isinstance(value, str) else json.dumps(value)}"
            for key, value in self.values
        )

    @property
    def settings(self) -> tuple[str, ...]:
        """For a config: `key.path=value`."""
        return tuple(
            f"{SHORT_KEYS.get(key, key)}={json.dumps(value)}" for key, value in self.values
        )


@dataclass(frozen=True)
class Trial:
    """A combination and its run.

    failed: whether it failed in this sweep. What an earlier sweep left in the same run then does
    not count: it is of another log or of other code.
    """

    combination: Combination
    run: Run
    failed: bool = False

    @property
    def gate_report(self) -> GateReport | None:
        """The report of the gate, which holds the metrics; None if the trial failed."""
        return None if self.failed else find_gate_report(self.run)

    @property
    def served(self) -> Scores:
        """The scores of the served index by the gate's protocol and population; empty if the trial
        failed.
        """
        report = self.gate_report
        return judged(report.metrics, self.run.config.gate)[0].served if report else Scores({})

    @property
    def recall(self) -> float | None:
        """The recall that the gate compares; None if the trial failed."""
        return self.served.value(self.run.config.gate.metric)


def results(trials: Sequence[Trial]) -> list[JSON]:
    """The result of each trial, the best first, failed ones (recall None) last: recall of the
    served index with its interval, seconds of training, milliseconds a query, the values.
    """
    rows = [_result(trial) for trial in trials]
    return sorted(rows, key=lambda row: (row["recall"] is None, -(row["recall"] or 0.0)))


def _result(trial: Trial) -> JSON:
    key = trial.run.config.gate.metric
    row: JSON = {
        "label": trial.combination.label,
        "run": str(trial.run.root),
        "metric": key,
        "recall": trial.recall,
        "low": None,
        "high": None,
        "train_seconds": None,
        "ms_per_query": None,
        "chosen": dict(trial.combination.values),
    }
    if trial.gate_report:
        served = trial.served
        rate = trial.run.need("build_index").info.get("queries_per_s")
        row["low"] = served.value(f"{key}_low")
        row["high"] = served.value(f"{key}_high")
        row["train_seconds"] = trial.run.need("train_towers").seconds
        row["ms_per_query"] = 1000 / rate if rate else None
    return row


def result_line(row: JSON) -> str:
    """The result of a trial in one line. row: as `results` returns it."""
    if row["recall"] is None:
        return f"{row['label']}: failed"
    recall = f"{row['metric']} {row['recall']:.4f} ({row['low']:.4f} to {row['high']:.4f})"
    return f"{row['label']}: {recall}, trained in {row['train_seconds']:.1f} s"


def trials_line(results: Sequence[JSON]) -> str:
    """The result of a sweep in one line. results: as `results` returns them."""
    failed = sum(row["recall"] is None for row in results)
    trials = f"{len(results)} trials" + (f", {failed} failed" if failed else "")
    best = results[0]
    if best["recall"] is None:
        return trials
    return f"{best['label']} is the best of {trials}: {best['metric']} {best['recall']:.4f}"


def winner(trials: Sequence[Trial]) -> Combination:
    """The combination with the highest recall, of equal ones the first. DataError if all failed."""
    finished = [(trial.recall, trial) for trial in trials if trial.recall is not None]
    if not finished:
        raise DataError("all trials failed: read their logs, and start the sweep again")
    return max(finished, key=lambda pair: pair[0])[1].combination


def to_json(trial: Trial) -> Mapping[str, Any]:
    """A trial as plain JSON, for another process. `from_json` reads it."""
    return {
        "label": trial.combination.label,
        "chosen": list(trial.combination.values),
        "run": str(trial.run.root),
        "failed": trial.failed,
    }


def from_json(raw: Mapping[str, Any], run: Run) -> Trial:
    """The trial that `to_json` gave as JSON. run: its run, opened."""
    values = tuple((str(key), value) for key, value in raw["chosen"])
    return Trial(Combination(values), run, raw["failed"])
