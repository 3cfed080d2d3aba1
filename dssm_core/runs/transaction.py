"""Execute a step as a transaction: all of its output appears at once, manifest included, or none.

A step works in a hidden folder `.<step>.part` beside its own. The folder survives a kill, so that
the step can resume, and is renamed to `<step>` once the manifest is in it. If the data breaks a
rule, which no retry can change, it is renamed to `<step>.failed` instead, for people to read.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import time
from pathlib import Path
from typing import Any

import tenacity
from filelock import FileLock

from dssm_core.errors import ArtifactError, DataError, LostAnswer
from dssm_core.families import named
from dssm_core.runs.files import SCRATCH, disk_errors, hashes, link, write_atomically
from dssm_core.runs.layout import MANIFEST_FILE
from dssm_core.runs.manifest import Manifest, Outcome
from dssm_core.runs.run import Run, find_twins
from dssm_core.runs.step_key import step_key
from dssm_core.runs.table import Step, find_step

log = logging.getLogger(__name__)

KEY_FILE = "key.json"  # in the folder of an unfinished step
KEPT = "What the step wrote before it failed"
ATTEMPTS = 3  # of a step that loses the answer of a service


def execute(run: Run, name: str) -> Manifest:
    """Run one step of a run as a transaction, and return its manifest.

    A step that is finished with the same key returns at once. So does a reusable one that is
    finished in another run of the same dataset and day: its files are linked into this run. An
    unfinished attempt with the same key is resumed. Raises what the step's function raises.
    """
    step = find_step(name)
    with FileLock(run.root / f".{name}.lock"):
        key = step_key(run, step)
        manifest = run.manifest(name)
        if manifest and manifest.key == key:
            return manifest
        twin = _twin(run, step, key)
        return _adopt(run, step, twin) if twin else _work(run, step, key)


def _twin(run: Run, step: Step, key: str) -> Run | None:
    """Another run with the same finished step; None if the step is not reusable."""
    if not step.reusable:
        return None
    return next((twin for twin in find_twins(run) if _has_finished(twin, step, key)), None)


def _has_finished(twin: Run, step: Step, key: str) -> bool:
    try:
        manifest = twin.manifest(step.name)
    except ArtifactError as error:  # damage of another run is no reason to stop this one
        log.warning("%s", error)
        return False
    return manifest is not None and manifest.key == key


def _adopt(run: Run, step: Step, twin: Run) -> Manifest:
    """Link a twin's files into this run, which stays complete if the twin is removed."""
    manifest = twin.need(step.name)
    part = _fresh(run.root / f".{step.name}.part")
    shutil.copytree(twin.step(step.name), part, copy_function=link, dirs_exist_ok=True)
    (part / MANIFEST_FILE).unlink()
    adopted = manifest.model_copy(update={"reused_from": twin.id, "seconds": 0.0})
    return _publish(run, step, part, adopted)


def _work(run: Run, step: Step, key: str) -> Manifest:
    """Call the step's function, resuming an attempt with the same key, and publish its output."""
    part = run.root / f".{step.name}.part"
    key_file = part / KEY_FILE
    if not (key_file.is_file() and json.loads(key_file.read_bytes()) == key):
        _fresh(part)
        write_atomically(key_file, json.dumps(key).encode())
    _remove_leftovers(run, step)
    started = time.perf_counter()
    outcome = _call(run, step, part)
    key_file.unlink()
    for leftover in part.rglob(".*.part"):  # of a write that was killed
        leftover.unlink()
    manifest = Manifest(
        step=step.name,
        key=key,
        files=hashes(part),
        rows=outcome.rows,
        info=outcome.info,
        seconds=round(time.perf_counter() - started, 3),
        seed=run.config.seed,
    )
    return _publish(run, step, part, manifest)


def _call(run: Run, step: Step, part: Path) -> Outcome:
    """The outcome of the step's function. If the data breaks a rule, its output is kept.

    A step that loses the answer of a service is called again, and resumes as after a kill.
    """
    passed: dict[str, Any] = {name: named(path) for name, path in step.passes.items()}
    attempts = tenacity.Retrying(
        retry=tenacity.retry_if_exception_type(LostAnswer),
        stop=tenacity.stop_after_attempt(ATTEMPTS),
        before_sleep=tenacity.before_sleep_log(log, logging.WARNING),
        reraise=True,
    )
    try:
        with disk_errors(part):
            outcome: Outcome = attempts(named(step.function), run, part, **passed)
    except DataError as error:
        if kept := _keep_failed(run, step, part):
            raise DataError(f"{error}\n{KEPT}: {kept}") from error
        raise
    return outcome


def _keep_failed(run: Run, step: Step, part: Path) -> Path | None:
    """Move a failed attempt's output to `<step>.failed`; None if it wrote nothing."""
    (part / KEY_FILE).unlink()
    if not any(part.iterdir()):
        return None
    failed = run.failed(step.name)
    os.replace(part, failed)
    return failed


def _remove_leftovers(run: Run, step: Step) -> None:
    """Remove a failed attempt's output, and temporary folders of killed processes."""
    for leftover in (run.failed(step.name), *run.root.glob(f"{SCRATCH}*")):
        shutil.rmtree(leftover, ignore_errors=True)


def _publish(run: Run, step: Step, part: Path, manifest: Manifest) -> Manifest:
    """Write the manifest last and give the folder the step's name."""
    write_atomically(part / MANIFEST_FILE, manifest.model_dump_json(indent=2).encode())
    shutil.rmtree(run.step(step.name), ignore_errors=True)
    os.replace(part, run.step(step.name))
    shutil.rmtree(run.failed(step.name), ignore_errors=True)
    return manifest


def _fresh(folder: Path) -> Path:
    """An empty folder of that name."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder
