"""Run the jobs of a bench, each in a process of its own, and record what they measure."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from benchmarks.jobs import Job, queues
from benchmarks.records import results_file, short_code_version
from benchmarks.tables import CHECKOUT, Bench
from dssm_core.aliases import JSON
from dssm_core.errors import ConfigError
from dssm_core.runs.json_lines import append_json_line
from dssm_core.runs.run import Run, open_run

THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS")
ERROR_LINE = re.compile(r"[\w.]*(Error|Exception|Interrupt)\b")
MOST_ERROR_CHARACTERS = 1000
TICK_S = 0.5

Started = Callable[[Job, Path], None]  # a job, and the log that it writes
Ended = Callable[[Job, JSON], None]  # a job, and its record


def measure(
    bench: Bench,
    jobs: Sequence[Job],
    runs: Path,
    data: Path | None,
    at_once: int = 1,
    started: Started = lambda job, log: None,
    ended: Ended = lambda job, record: None,
    tick: Callable[[], None] = lambda: None,
) -> list[JSON]:
    """Run jobs, `at_once` at a time with the cores divided among them, and return their records.

    Each record is appended to results.jsonl as its job ends. Jobs of one config file, day and seed
    run one after the other, so that the part they share is trained once and reused. A job that
    fails leaves a record with its error. `tick` is called about twice a second.
    """
    folder = results_file(bench, runs).parent
    (folder / "logs").mkdir(parents=True, exist_ok=True)
    if at_once > 1 and jobs:
        from dssm_core.tracking.client import connect  # a heavy import

        connect(folder)  # sets up a new SQLite store once, not in several processes at a time
    threads = _threads(at_once)
    environment = _environment(threads)
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
                done, _ = wait(waiting, timeout=TICK_S, return_when=FIRST_COMPLETED)
                for future in done:
                    job, *others = waiting.pop(future)
                    record = future.result() | {"threads": threads}
                    records.append(record)
                    append_json_line(results_file(bench, runs), record)
                    ended(job, record)
                    if others:
                        waiting[pool.submit(work, others[0])] = others
                tick()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            for process in set(running):
                process.terminate()
            raise
    return records


def run_job(
    job: Job,
    folder: Path,
    data: Path | None,
    environment: dict[str, str],
    running: set[subprocess.Popen[bytes]],
) -> JSON:
    """Run one job in a process, which is in `running` while it runs.

    Returns its record: the gate's metrics, seconds a step and peak memory, or the error.
    """
    log = folder / "logs" / f"{job.name}.log"
    out = log.with_suffix(".json")
    record: JSON = {
        "job": job.id,
        "seed": job.seed,
        "settings": job.settings_hash,
        "code": short_code_version(),
    }
    with log.open("wb") as stderr, out.open("wb") as stdout:
        process = subprocess.Popen(
            job.command(data, folder), stdout=stdout, stderr=stderr, env=environment, cwd=CHECKOUT
        )
        running.add(process)
        # The peak of this child alone. It is never below what this process held when it started
        # the child.
        _, status, usage = os.wait4(process.pid, 0)
        running.discard(process)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        return record | {"error": what_failed(process.returncode, log.read_text(errors="replace"))}
    summary = json.loads(out.read_text().splitlines()[-1])
    return record | read_run(summary, usage.ru_maxrss / 2**20)


def read_run(summary: JSON, peak_gib: float) -> JSON:
    """The part of a record that comes from a finished run.

    The seconds of a reused step are those of the run that executed it.
    """
    run = open_run(summary["run"])
    origins = {name: origin(run, name) for name in summary["seconds"]}
    training = run.need("train_towers").info
    return {
        "metrics": summary["metrics"],
        "rows": summary["rows"],
        "seconds": {name: source.need(name).seconds for name, source in origins.items()},
        "peak_gib": round(peak_gib, 3),
        "run": run.id,
        "trained_in": origins["train_towers"].id,
        "parameters": training.get("parameters"),
        "device": training.get("device"),
        "error": None,
    }


def origin(run: Run, step: str) -> Run:
    """The run that executed a step which `run` may have reused; `run` itself if that is gone."""
    while reused := run.need(step).reused_from:
        source = Run(run.root.parent / reused)
        if source.manifest(step) is None:
            break
        run = source
    return run


def what_failed(status: int, log: str) -> str:
    """The error at the end of a process's log, or the signal that ended the process."""
    if status < 0:
        name = signal.Signals(-status).name
        return f"ended by {name}" + (": out of memory?" if name == "SIGKILL" else "")
    lines = [line.rstrip() for line in log.splitlines() if line.strip()]
    errors = [position for position, line in enumerate(lines) if ERROR_LINE.match(line)]
    first = errors[-1] if errors else len(lines) - 1
    return "\n".join(lines[first:])[:MOST_ERROR_CHARACTERS] or f"exit status {status}"


def step_of(log: Path) -> str:
    """The last step that a running job has started, read from its log; empty before the first."""
    text = log.read_text(errors="replace") if log.is_file() else ""
    words = [line.split() for line in text.splitlines() if line.startswith("▶")]
    return next((line[1] for line in reversed(words) if len(line) > 1), "")


@contextmanager
def exclusively(bench: Bench, runs: Path) -> Iterator[None]:
    """Hold the folder of a bench. ConfigError if another process holds it: its unfinished
    trainings would be taken for those of a killed process.
    """
    folder = results_file(bench, runs).parent
    folder.parent.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(folder.with_name(f".{bench.name}.lock"), timeout=0):
            yield
    except Timeout as error:
        raise ConfigError(
            f"another `python -m benchmarks {bench.name}` is running in {folder}: "
            "wait for it, or give another --runs"
        ) from error


def remove_runs(bench: Bench, runs: Path) -> None:
    """Remove all runs and records of a bench from the runs folder."""
    shutil.rmtree(results_file(bench, runs).parent, ignore_errors=True)


def remove_unfinished_trainings(bench: Bench, runs: Path) -> None:
    """Remove the trainings of killed runs. A run that continued one from its checkpoint would
    report too few seconds.
    """
    for part in results_file(bench, runs).parent.glob("*/*/*/.train_towers.part"):
        shutil.rmtree(part)


def cores() -> int:
    """The number of cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _threads(at_once: int) -> int:
    """Threads of each job."""
    if at_once > 1:
        return max(1, cores() // at_once)
    return int(os.environ.get(THREADS[0], cores()))


def _environment(threads: int) -> dict[str, str]:
    """The environment of a job: no team's MLflow server, and the number of threads."""
    own = {name: value for name, value in os.environ.items() if name != "MLFLOW_TRACKING_URI"}
    return own | {name: str(threads) for name in THREADS}
