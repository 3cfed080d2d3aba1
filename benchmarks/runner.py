"""Tables of systems side by side: what they hold, and how their rows are measured.

A table is benchmarks/NAME.yaml. Each row and seed is a run in a process of its own. Records are
appended to <runs>/bench/NAME/results.jsonl, so that an interrupted bench continues, and kept in
benchmarks/results/NAME.jsonl, from which `pages.py` generates the section of docs/benchmarks.md.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import date
from fnmatch import fnmatch
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, TypeVar

import yaml
from filelock import FileLock, Timeout
from pydantic import Field, ValidationError, model_validator

from dssm_core.aliases import JSON
from dssm_core.config import Config, Section, read_config
from dssm_core.errors import ConfigError
from dssm_core.families import did_you_mean
from dssm_core.runs.files import digest, write_atomically
from dssm_core.runs.run import Run, open_run
from dssm_core.runs.step_key import code_version

CHECKOUT = Path(__file__).resolve().parent.parent
LAST_STEP = "recall_gate"
THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS")
KNOWN_ERROR = re.compile(r"[\w.]*(Error|Exception|Interrupt)\b")


class Row(Section):
    """A system of a table: trained from `config` (below configs/) with `set` laid over it, or read
    from that run's report.

    baseline: the figures are that baseline's in the run's report. best_of: column -> a mapping in
    it (by_window), of which the largest is shown, and nothing for other columns. ceiling: the
    report's ceiling. published: figures of others, never mixed with ours; source says whose,
    same_data whether on the same data: true, false, or which part ("users 1-2999"). A row without
    config has published ones only.
    """

    title: str
    config: str | None = None
    set: tuple[str, ...] = ()
    baseline: str | None = None
    best_of: dict[str, str] = Field(default_factory=dict)
    ceiling: bool = False
    published: dict[str, float] = Field(default_factory=dict)
    source: str | None = None
    same_data: bool | str | None = None

    @model_validator(mode="after")
    def _whole(self) -> Row:
        if not self.config and not self.published:
            raise ValueError(f"row {self.title!r} holds neither config nor published figures")
        if self.published and (self.source is None or self.same_data is None):
            raise ValueError(
                f"row {self.title!r} holds published figures: say their source and same_data (true, false, or which part)"
            )
        if self.baseline and self.ceiling:
            raise ValueError(f"row {self.title!r} is a baseline or the ceiling, not both")
        return self

    @property
    def trained(self) -> bool:
        """Whether the row is a model of ours, not a list read from the report."""
        return bool(self.config) and not self.baseline and not self.ceiling


class Table(Section):
    """Rows measured by one protocol. columns: figure of the report -> heading; `all.recall@20` is
    that of the slice `all`.

    data: sub-folder of --data that replaces `data.source.path`. test_days: each row once a day.
    note: Markdown after the table.
    """

    title: str
    protocol: str
    columns: Annotated[dict[str, str], Field(min_length=1)]
    rows: Annotated[tuple[Row, ...], Field(min_length=1)]
    data: str | None = None
    seeds: Annotated[tuple[int, ...], Field(min_length=1)] = (1, 2, 3)
    test_days: tuple[date, ...] = ()
    note: str = ""

    @model_validator(mode="after")
    def _distinct(self) -> Table:
        titles = [row.title for row in self.rows]
        if twice := sorted({title for title in titles if titles.count(title) > 1}):
            raise ValueError(f"two rows are called {twice[0]!r}: give each a title of its own")
        for row in self.rows:
            if unknown := [name for name in row.published if name not in self.columns]:
                raise ValueError(
                    f"row {row.title!r} publishes {unknown[0]!r}: {did_you_mean(unknown[0], list(self.columns))}"
                )
        return self


class Parts(Section):
    """Rows of other tables, run again with seeds of their own. tables: name -> titles of its rows
    (none: all).
    """

    title: str
    tables: Annotated[dict[str, tuple[str, ...]], Field(min_length=1)]
    seeds: Annotated[tuple[int, ...], Field(min_length=1)]


@dataclass(frozen=True)
class Bench:
    """What a bench of this name runs: one table, or parts of several."""

    name: str
    title: str
    tables: tuple[Table, ...]
    parts: bool = False

    def only(self, patterns: Sequence[str]) -> Bench:
        """The same with the rows whose titles match (see choose_rows); all where no pattern is
        given.
        """
        if not patterns:
            return self
        rows = choose_rows([row for table in self.tables for row in table.rows], patterns)
        kept = [tuple(row for row in table.rows if row in rows) for table in self.tables]
        tables = [
            table.model_copy(update={"rows": rows})
            for table, rows in zip(self.tables, kept, strict=True)
            if rows
        ]
        return replace(self, tables=tuple(tables))


@dataclass(frozen=True)
class Job:
    """One run: a config file below `configs`, what is laid over it, the log, the test day, the
    seed.
    """

    configs: Path
    config: str
    overrides: tuple[str, ...]
    data: str | None
    test_day: date | None
    seed: int

    @property
    def id(self) -> str:
        """What tells jobs apart, whatever machine they run on."""
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
        """All that is laid over the config file."""
        day = [f'split.test_day="{self.test_day}"'] if self.test_day else []
        return (*self.overrides, *day, f"seed={self.seed}")

    @cached_property
    def settings_hash(self) -> str:
        """Hash of the config as the run will hold it, but for where the log lies. ConfigError
        naming the file.
        """
        return digest(self.read().model_dump(mode="json"))[:16]

    def read(self) -> Config:
        """The config, checked."""
        try:
            return read_config(self.file, overrides=self.settings)
        except ConfigError as error:
            raise ConfigError(f"{self.file}: {error}") from error

    def command(self, data: Path | None, runs: Path) -> list[str]:
        """The process that runs it, up to the gate: nothing is registered."""
        command = [
            sys.executable,
            "-m",
            "dssm_core.cli",
            "run",
            str(self.file),
            "--json",
            "--until",
            LAST_STEP,
            "--runs",
            str(runs),
        ]
        command += ["--data", str(data / self.data)] if data and self.data else []
        return command + [part for setting in self.settings for part in ("--set", setting)]


def find_tables(checkout: Path = CHECKOUT) -> dict[str, Path]:
    """The tables that can be run, by name; ConfigError where the package does not lie in a
    checkout.
    """
    found = {file.stem: file for file in sorted((checkout / "benchmarks").glob("*.yaml"))}
    if not found:
        raise ConfigError(
            f"{checkout / 'benchmarks'} holds no tables: run `python -m benchmarks` in a checkout of the project"
        )
    return found


def read_bench(name: str, checkout: Path = CHECKOUT, seeds: Sequence[int] = ()) -> Bench:
    """The table called `name`, or those it takes rows from, with other seeds on request.
    ConfigError names the file.
    """
    file = _file(name, checkout)
    raw = _yaml(file)
    if "tables" not in raw:
        table = _checked(Table, raw, file)
        return Bench(
            name, table.title, (table.model_copy(update={"seeds": tuple(seeds) or table.seeds}),)
        )
    parts = _checked(Parts, raw, file)
    tables = []
    for part, titles in parts.tables.items():
        table = _checked(Table, _yaml(_file(part, checkout)), _file(part, checkout))
        rows = choose_rows(table.rows, titles) if titles else table.rows
        tables.append(table.model_copy(update={"rows": rows, "seeds": tuple(seeds) or parts.seeds}))
    return Bench(name, parts.title, tuple(tables), parts=True)


def choose_rows(rows: Sequence[Row], patterns: Iterable[str]) -> tuple[Row, ...]:
    """The rows whose titles match, in the table's order; a pattern may hold `*`. ConfigError with a
    hint where one matches none.
    """
    titles = [row.title for row in rows]
    chosen = set()
    for pattern in patterns:
        if not (
            matched := [
                title
                for title in titles
                if title == pattern or fnmatch(title.lower(), pattern.lower())
            ]
        ):
            raise ConfigError(f"unknown row {pattern!r}: {did_you_mean(pattern, titles)}")
        chosen.update(matched)
    return tuple(row for row in rows if row.title in chosen)


def jobs_of(table: Table, row: Row, checkout: Path = CHECKOUT) -> dict[date | None, list[Job]]:
    """The runs of a row by test day (None: the config's own), one a seed; none where only published
    figures are known.
    """
    if row.config is None:
        return {None: []}
    config = row.config
    days: tuple[date | None, ...] = table.test_days or (None,)
    return {
        day: [
            Job(checkout / "configs", config, row.set, table.data, day, seed)
            for seed in table.seeds
        ]
        for day in days
    }


def all_jobs(bench: Bench, checkout: Path = CHECKOUT) -> dict[Job, str]:
    """Every run of a bench, once, with the title of the row that trains or reads it. ConfigError
    tells all that is wrong in all configs.
    """
    jobs: dict[Job, str] = {}
    for table in bench.tables:
        for row in table.rows:
            for found in jobs_of(table, row, checkout).values():
                jobs |= {job: row.title for job in found if row.trained or job not in jobs}
    problems = [
        problem
        for table in bench.tables
        for row in table.rows
        if (problem := _problem(table, row, checkout))
    ]
    if problems:
        raise ConfigError("\n".join(problems))
    return jobs


def measure(
    bench: Bench,
    jobs: Sequence[Job],
    runs: Path,
    data: Path | None,
    at_once: int = 1,
    started: Callable[[Job, Path], None] = lambda job, log: None,
    ended: Callable[[Job, JSON], None] = lambda job, record: None,
    tick: Callable[[], None] = lambda: None,
) -> list[JSON]:
    """Run jobs, `at_once` at a time with the cores divided among them; a record each, appended to
    results.jsonl as they end.

    Jobs of one config file, day and seed run one after the other: what they share is then trained
    once and reused.
    started: told the log that a job writes; tick: called about twice a second. A job that fails
    leaves a record with its error.
    """
    folder = runs / "bench" / bench.name
    (folder / "logs").mkdir(parents=True, exist_ok=True)
    if at_once > 1 and jobs:
        from dssm_core.tracking.client import connect  # a heavy import

        connect(
            folder
        )  # a new SQLite store is set up once, not by several processes at the same time
    threads = (
        max(1, cores() // at_once) if at_once > 1 else int(os.environ.get(THREADS[0], cores()))
    )
    own = {
        name: value for name, value in os.environ.items() if name != "MLFLOW_TRACKING_URI"
    }  # a bench is no team's record
    environment = own | {name: str(threads) for name in THREADS}
    running: set[subprocess.Popen[bytes]] = set()

    def work(job: Job) -> JSON:
        started(job, folder / "logs" / f"{job.name}.log")
        return run_job(job, folder, data, environment, running)

    records = []
    with ThreadPoolExecutor(at_once) as pool:
        waiting: dict[Future[JSON], list[Job]] = {
            pool.submit(work, queue[0]): queue for queue in queues(jobs)
        }
        try:
            while waiting:
                done, _ = wait(waiting, timeout=0.5, return_when=FIRST_COMPLETED)
                for future in done:
                    job, *others = waiting.pop(future)
                    records.append(future.result() | {"threads": threads})
                    append(folder / "results.jsonl", records[-1])
                    ended(job, records[-1])
                    if others:
                        waiting[pool.submit(work, others[0])] = others
                tick()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            for process in set(running):
                process.terminate()
            raise
    return records


def queues(jobs: Iterable[Job]) -> list[list[Job]]:
    """Jobs that may share a training, together and in their order: those of one config file, day
    and seed.
    """
    found: dict[tuple[str, date | None, int], list[Job]] = {}
    for job in jobs:
        found.setdefault((job.config, job.test_day, job.seed), []).append(job)
    return list(found.values())


def run_job(
    job: Job,
    folder: Path,
    data: Path | None,
    environment: dict[str, str],
    running: set[subprocess.Popen[bytes]],
) -> JSON:
    """One run in a process of its own: the gate's report, seconds a step, peak memory; or the error
    it ended with.
    """
    log, out = folder / "logs" / f"{job.name}.log", folder / "logs" / f"{job.name}.json"
    record: JSON = {
        "job": job.id,
        "seed": job.seed,
        "settings": job.settings_hash,
        "code": code_version()[:16],
    }
    with log.open("wb") as stderr, out.open("wb") as stdout:
        process = subprocess.Popen(
            job.command(data, folder), stdout=stdout, stderr=stderr, env=environment, cwd=CHECKOUT
        )
        running.add(process)
        # Of this child alone; not less than what this process itself held, from which it was
        # started.
        _, status, usage = os.wait4(process.pid, 0)
        running.discard(process)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        return record | {"error": what_failed(process.returncode, log.read_text(errors="replace"))}
    summary = json.loads(out.read_text().splitlines()[-1])
    return record | read_run(summary, usage.ru_maxrss / 2**20)


def read_run(summary: JSON, peak_gib: float) -> JSON:
    """What a table needs of a finished run. Seconds of a step that was reused are those it took
    where it was executed.
    """
    run = open_run(summary["run"])
    origins = {name: origin(run, name) for name in summary["seconds"]}
    trained = run.need("train_towers").info
    return {
        "metrics": summary["metrics"],
        "rows": summary["rows"],
        "seconds": {name: found.need(name).seconds for name, found in origins.items()},
        "peak_gib": round(peak_gib, 3),
        "run": run.id,
        "trained_in": origins["train_towers"].id,
        "parameters": trained.get("parameters"),
        "device": trained.get("device"),
        "error": None,
    }


def origin(run: Run, step: str) -> Run:
    """The run that executed a step which this one may have reused; the run itself where that one is
    gone.
    """
    while reused := run.need(step).reused_from:
        twin = Run(run.root.parent / reused)
        if twin.manifest(step) is None:
            break
        run = twin
    return run


def what_failed(status: int, log: str) -> str:
    """The error at the end of a process's log, or the signal that ended it."""
    if status < 0:
        name = signal.Signals(-status).name
        return f"ended by {name}" + (": out of memory?" if name == "SIGKILL" else "")
    lines = [line.rstrip() for line in log.splitlines() if line.strip()]
    first = next(
        (at for at in range(len(lines) - 1, -1, -1) if KNOWN_ERROR.match(lines[at])), len(lines) - 1
    )
    return "\n".join(lines[first:])[:1000] or f"exit status {status}"


def known(jobs: Iterable[Job], runs: Path) -> dict[Job, JSON]:
    """Jobs already measured on this disk by any table, with equal settings and code, and without an
    error.
    """
    found = [
        record
        for file in sorted((runs / "bench").glob("*/results.jsonl"))
        for record in read_records(file)
    ]
    by_key = {_key(record): record for record in found if not record["error"]}
    code = code_version()[:16]
    return {
        job: by_key[key] for job in jobs if (key := (job.id, job.settings_hash, code)) in by_key
    }


def check_data(bench: Bench, data: Path | None) -> None:
    """Refuse, before anything runs, to do without a log that a table needs."""
    for folder in dict.fromkeys(table.data for table in bench.tables if table.data):
        if data is None:
            raise ConfigError(
                f"table {bench.name!r} reads {folder!r}: say with --data (or $DSSM_DATA) which folder holds it"
            )
        if not (data / folder).exists():
            raise ConfigError(
                f"{data / folder} is not there: table {bench.name!r} reads it; docs/benchmarks.md says where to get the data"
            )


def step_of(log: Path) -> str:
    """The step that a running process has last begun."""
    text = log.read_text(errors="replace") if log.is_file() else ""
    return next(
        (
            line.split()[1]
            for line in reversed(text.splitlines())
            if line.startswith("▶") and len(line.split()) > 1
        ),
        "",
    )


@contextmanager
def alone(bench: Bench, runs: Path) -> Iterator[None]:
    """Hold a table's folder; ConfigError where another process does: what it trains would look like
    what a killed one left.
    """
    folder = runs / "bench" / bench.name
    folder.parent.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(folder.with_name(f".{bench.name}.lock"), timeout=0):
            yield
    except Timeout as error:
        raise ConfigError(
            f"another `python -m benchmarks {bench.name}` is running in {folder}: wait for it, or give another --runs"
        ) from error


def start_afresh(bench: Bench, runs: Path) -> None:
    """Remove all that this bench has left in the runs folder."""
    shutil.rmtree(runs / "bench" / bench.name, ignore_errors=True)


def drop_half_trained(bench: Bench, runs: Path) -> None:
    """Remove what killed runs left of a training: it would go on from its checkpoint and its
    seconds would be too few.
    """
    for part in (runs / "bench" / bench.name).glob("*/*/*/.train_towers.part"):
        shutil.rmtree(part)


def publish(bench: Bench, records: Iterable[JSON], checkout: Path = CHECKOUT) -> dict[str, JSON]:
    """Lay records over those kept in benchmarks/results and return all by job; records of no row
    are dropped.
    """
    file = checkout / "benchmarks" / "results" / f"{bench.name}.jsonl"
    by_job = {
        record["job"]: record
        for record in [*(read_records(file) if file.is_file() else ()), *records]
    }
    kept = {job.id: by_job[job.id] for job in all_jobs(bench, checkout) if job.id in by_job}
    peaks = {record["run"]: record["peak_gib"] for record in kept.values() if not record["error"]}
    for record in kept.values():  # a run that reused another's towers needed that one's memory
        if not record["error"]:
            record["peak_gib"] = max(record["peak_gib"], peaks.get(record["trained_in"], 0.0))
    if kept or file.is_file():
        write_atomically(
            file,
            "".join(json.dumps(record, sort_keys=True) + "\n" for record in kept.values()).encode(),
        )
    return kept


def read_records(file: Path) -> list[JSON]:
    """The records in a JSON lines file; a last line that a kill cut short is left out."""
    lines = file.read_text().splitlines(keepends=True)
    return [json.loads(line) for line in lines if line.endswith("\n")]


_APPEND = threading.Lock()


def append(file: Path, record: JSON) -> None:
    """Add one line."""
    with _APPEND, file.open("a") as stream:
        stream.write(json.dumps(record, sort_keys=True) + "\n")


def cores() -> int:
    """The cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _key(record: JSON) -> tuple[str, str, str]:
    return record["job"], record["settings"], record["code"]


def _problem(table: Table, row: Row, checkout: Path) -> str | None:
    """What is wrong with a row's config, or with the baseline it wants from it."""
    first = next((job for jobs in jobs_of(table, row, checkout).values() for job in jobs), None)
    if first is None:
        return None
    try:
        names = [member.name for member in first.read().evaluation.baselines]
    except ConfigError as error:
        return f"row {row.title!r}: {error}"
    if row.baseline and row.baseline not in names:
        return f"row {row.title!r}: {row.config} measures no baseline {row.baseline!r}: {did_you_mean(row.baseline, names)}"
    return None


def _file(name: str, checkout: Path) -> Path:
    tables = find_tables(checkout)
    if name not in tables:
        raise ConfigError(f"unknown table {name!r}: {did_you_mean(name, list(tables))}")
    return tables[name]


def _yaml(file: Path) -> dict[str, Any]:
    try:
        raw = yaml.safe_load(file.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise ConfigError(f"{file} is not valid YAML: {error}") from error
    if not isinstance(raw, dict):
        raise ConfigError(
            f"{file} holds {type(raw).__name__}, not a table: see benchmarks/globo.yaml"
        )
    return raw


M = TypeVar("M", Table, Parts)


def _checked(model: type[M], raw: dict[str, Any], file: Path) -> M:
    try:
        return model.model_validate(raw)
    except ValidationError as error:
        problems = (
            f"{'.'.join(map(str, problem['loc']))}: {problem['msg']}" for problem in error.errors()
        )
        raise ConfigError(f"{file}: " + "; ".join(problems)) from error
