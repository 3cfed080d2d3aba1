"""The lines of a table: a row on one test day, with the records of its jobs."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path

from benchmarks.jobs import Job, jobs_of
from benchmarks.tables import CHECKOUT, BenchRow, BenchTable
from dssm_core.aliases import JSON


@dataclass(frozen=True)
class Line:
    """A row on one test day: its jobs and their records (None: not run)."""

    row: BenchRow
    day: date | None
    jobs: tuple[Job, ...]
    records: tuple[JSON | None, ...]

    @property
    def measured(self) -> list[JSON]:
        """The records of the runs that succeeded."""
        return [record for record in self.records if record and not record["error"]]

    @property
    def failed(self) -> list[JSON]:
        """The records of the runs that failed."""
        return [record for record in self.records if record and record["error"]]

    @property
    def stale(self) -> bool:
        """Whether a record was measured with settings that have changed since."""
        pairs = zip(self.jobs, self.records, strict=True)
        return any(record and record["settings"] != job.settings_hash for job, record in pairs)

    def values(self, column: str) -> list[float]:
        """The figure of a column for each seed that has one."""
        figures = [figure(record["metrics"], self.row, column) for record in self.measured]
        return [value for value in figures if value is not None]


def figure(metrics: JSON, row: BenchRow, column: str) -> float | None:
    """The figure of a row in a run's report, None if the report has none.

    column: `recall@20`, or `all.recall@20` in the slice `all`.
    """
    slice_name, _, name = column.rpartition(".")
    node = metrics.get(slice_name, {}) if slice_name else metrics
    for key in _path(row):
        node = node.get(key, {})
    value: float | None
    if row.best_of:
        value = max(node.get(row.best_of.get(name, ""), {}).values(), default=None)
    else:
        value = node.get(name)
    return value


def _path(row: BenchRow) -> list[str]:
    """The keys that lead to the figures of a row in a report."""
    if row.ceiling:
        return ["ceiling"]
    return ["baselines", row.baseline] if row.baseline else ["served"]


def lines_of(
    table: BenchTable, by_job: Mapping[str, JSON], checkout: Path = CHECKOUT
) -> list[Line]:
    """The lines of a table: day by day in the order of its rows, then the published rows.

    by_job: the records by job id.
    """
    days: tuple[date | None, ...] = table.test_days or (None,)
    jobs = {row.title: jobs_of(table, row, checkout) for row in table.rows}
    lines = [
        _line(row, day, jobs[row.title][day], by_job)
        for day in days
        for row in table.rows
        if day in jobs[row.title]
    ]
    if table.test_days:
        lines += [_line(row, None, [], by_job) for row in table.rows if row.config is None]
    return lines


def _line(row: BenchRow, day: date | None, jobs: Sequence[Job], by_job: Mapping[str, JSON]) -> Line:
    return Line(row, day, tuple(jobs), tuple(by_job.get(job.id) for job in jobs))


def best_line(lines: Sequence[Line], day: date | None, column: str) -> Line | None:
    """The line with the highest mean in a column on a day, among the systems that could be served:
    not the ceiling, and not what is chosen in hindsight.
    """
    candidates = [
        line
        for line in lines
        if line.day == day and not line.row.ceiling and not line.row.best_of and line.values(column)
    ]
    return max(candidates, key=lambda line: statistics.fmean(line.values(column)), default=None)


def spread(values: Sequence[float]) -> float:
    """Standard deviation over seeds; 0 for a single seed."""
    return statistics.stdev(values) if len(values) > 1 else 0.0
