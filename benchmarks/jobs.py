"""The runs of a bench: a job is one row of a table with one seed on one test day."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date
from functools import cached_property
from pathlib import Path

from benchmarks.tables import CHECKOUT, Bench, BenchRow, BenchTable
from dssm_core.config import Config, read_config
from dssm_core.errors import ConfigError
from dssm_core.families import did_you_mean
from dssm_core.runs.files import digest

LAST_STEP = "recall_gate"


@dataclass(frozen=True)
class Job:
    """One run: a config file in the folder `configs`, the settings laid over it, the sub-folder of
    its data, the test day and the seed.
    """

    configs: Path
    config: str
    overrides: tuple[str, ...]
    data: str | None
    test_day: date | None
    seed: int

    @property
    def id(self) -> str:
        """Equal for equal jobs on any machine."""
        day = [f"test_day={self.test_day}"] if self.test_day else []
        return " ".join([self.config, *self.overrides, *day, f"seed={self.seed}"])

    @cached_property
    def name(self) -> str:
        """A short name for files."""
        return f"{self.file.stem}-{digest([self.id, self.data])[:10]}"

    @property
    def file(self) -> Path:
        """The config file."""
        return self.configs / self.config

    @property
    def settings(self) -> tuple[str, ...]:
        """All settings that are laid over the config file, as `key.path=value`."""
        day = [f'split.test_day="{self.test_day}"'] if self.test_day else []
        return (*self.overrides, *day, f"seed={self.seed}")

    @cached_property
    def settings_hash(self) -> str:
        """Hash of the run's config without the path of the log. ConfigError names the file."""
        return digest(self.read().deciding())[:16]

    def read(self) -> Config:
        """The validated config."""
        try:
            return read_config(self.file, overrides=self.settings)
        except ConfigError as error:
            raise ConfigError(f"{self.file}: {error}") from error

    def command(self, data: Path | None, runs: Path) -> list[str]:
        """The command that runs it up to the gate. Nothing is registered."""
        command = [sys.executable, "-m", "dssm_core.cli", "run", str(self.file), "--json"]
        command += ["--until", LAST_STEP, "--runs", str(runs)]
        command += ["--data", str(data / self.data)] if data and self.data else []
        return command + [part for setting in self.settings for part in ("--set", setting)]


def jobs_of(
    table: BenchTable, row: BenchRow, checkout: Path = CHECKOUT
) -> dict[date | None, list[Job]]:
    """The jobs of a row by test day, one a seed. The key None is the config's own test day.

    A row with published figures only has no jobs.
    """
    if row.config is None:
        return {None: []}
    days: tuple[date | None, ...] = table.test_days or (None,)
    jobs: dict[date | None, list[Job]] = {}
    for day in days:
        jobs[day] = [
            Job(checkout / "configs", row.config, row.set, table.data, day, seed)
            for seed in table.seeds
        ]
    return jobs


def all_jobs(bench: Bench, checkout: Path = CHECKOUT) -> dict[Job, str]:
    """Every job of a bench once, with the title of its row: of several, the row that trains.

    ConfigError lists everything that is wrong in all configs.
    """
    titles: dict[Job, str] = {}
    problems: list[str] = []
    for table in bench.tables:
        for row in table.rows:
            problems += _problems(table, row, checkout)
            for jobs in jobs_of(table, row, checkout).values():
                titles |= {job: row.title for job in jobs if row.trained or job not in titles}
    if problems:
        raise ConfigError("\n".join(problems))
    return titles


def queues(jobs: Iterable[Job]) -> list[list[Job]]:
    """Jobs by config file, day and seed, in their order. Jobs of one queue may share a training."""
    by_key: dict[tuple[str, date | None, int], list[Job]] = {}
    for job in jobs:
        by_key.setdefault((job.config, job.test_day, job.seed), []).append(job)
    return list(by_key.values())


def check_data(bench: Bench, data: Path | None) -> None:
    """ConfigError if a log that a table needs is missing, before anything runs."""
    for folder in dict.fromkeys(table.data for table in bench.tables if table.data):
        if data is None:
            raise ConfigError(
                f"table {bench.name!r} reads {folder!r}: give the folder that holds it "
                "with --data or $DSSM_DATA"
            )
        if not (data / folder).exists():
            raise ConfigError(
                f"{data / folder} does not exist: table {bench.name!r} reads it; "
                "docs/benchmarks.md says where to get the data"
            )


def _problems(table: BenchTable, row: BenchRow, checkout: Path) -> list[str]:
    """What is wrong with the config of a row, or with the baseline that it names."""
    first = next((job for jobs in jobs_of(table, row, checkout).values() for job in jobs), None)
    if first is None:
        return []
    try:
        names = [member.name for member in first.read().evaluation.baselines]
    except ConfigError as error:
        return [f"row {row.title!r}: {error}"]
    if row.baseline and row.baseline not in names:
        hint = did_you_mean(row.baseline, names)
        return [f"row {row.title!r}: {row.config} measures no baseline {row.baseline!r}: {hint}"]
    return []
