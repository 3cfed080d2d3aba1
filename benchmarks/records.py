"""What was measured: a record a job, kept beside the runs and in benchmarks/results/."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from benchmarks.jobs import Job, all_jobs
from benchmarks.tables import CHECKOUT, Bench
from dssm_core.aliases import JSON
from dssm_core.runs.code_version import code_version
from dssm_core.runs.files import write_atomically
from dssm_core.runs.json_lines import json_line, read_json_lines


def results_file(bench: Bench, runs: Path) -> Path:
    """The file beside the runs to which the records of a bench are appended as its jobs end."""
    return runs / "bench" / bench.name / "results.jsonl"


def measured_jobs(jobs: Iterable[Job], runs: Path) -> dict[Job, JSON]:
    """The jobs that any bench has measured on this disk with equal settings and code and without
    an error, with their records.
    """
    records: dict[tuple[str, str, str], JSON] = {}
    for file in sorted((runs / "bench").glob("*/results.jsonl")):
        for record in read_json_lines(file):
            if not record["error"]:
                records[record["job"], record["settings"], record["code"]] = record
    code = short_code_version()
    keys = {job: (job.id, job.settings_hash, code) for job in jobs}
    return {job: records[key] for job, key in keys.items() if key in records}


def publish(bench: Bench, records: Iterable[JSON], checkout: Path = CHECKOUT) -> dict[str, JSON]:
    """Add records to those in benchmarks/results, and return all of them by job id.

    A new record replaces an earlier one of the same job. Records whose job no row has any more
    are removed.
    """
    file = checkout / "benchmarks" / "results" / f"{bench.name}.jsonl"
    by_job = {record["job"]: record for record in [*read_json_lines(file), *records]}
    current = {job.id: by_job[job.id] for job in all_jobs(bench, checkout) if job.id in by_job}
    _share_peaks(current.values())
    if current or file.is_file():
        write_atomically(file, "".join(map(json_line, current.values())).encode())
    return current


def _share_peaks(records: Iterable[JSON]) -> None:
    """Raise the peak memory of a run that reused another run's towers to that run's peak."""
    succeeded = [record for record in records if not record["error"]]
    peaks = {record["run"]: record["peak_gib"] for record in succeeded}
    for record in succeeded:
        record["peak_gib"] = max(record["peak_gib"], peaks.get(record["trained_in"], 0.0))


def short_code_version() -> str:
    """The code version that a record holds."""
    return code_version()[:16]
