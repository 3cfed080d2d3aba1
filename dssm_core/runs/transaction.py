"""Execute a step as a transaction: all of its output appears at once, manifest included, or none.

A step works in a hidden folder `.<step>.part` beside its own. The folder survives a kill, so that
the step can resume, and is renamed to `<step>` once the manifest is in it.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import time
from pathlib import Path
from typing import Any

from filelock import FileLock

from dssm_core.errors import ArtifactError
from dssm_core.families import named
from dssm_core.runs.files import SCRATCH, disk_errors, link, sha256, write_atomically
from dssm_core.runs.layout import MANIFEST_FILE
from dssm_core.runs.manifest import Manifest, Outcome
from dssm_core.runs.run import Run, find_twins
from dssm_core.runs.step_key import step_key
from dssm_core.runs.table import Step, find_step

log = logging.getLogger(__name__)


def execute(run: Run, name: str) -> Manifest:
    """Run one step of a run as a transaction, or return at once what is already there.

    Finished in this run, or finished in another run of the same window with the same code, settings
    and inputs: reused. Otherwise the function works in `.<step>.part`; one left by a killed attempt
    with the same key is resumed. Errors are the step's own (errors.py); nothing half-written takes
    the step's name.
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
    if not step.reusable:
        return None
    return next((twin for twin in find_twins(run) if _has(twin, step, key)), None)


def _has(twin: Run, step: Step, key: str) -> bool:
    try:
        manifest = twin.manifest(step.name)
    except ArtifactError as error:  # another run's damage is not this one's
        log.warning("%s", error)
        return False
    return manifest is not None and manifest.key == key


def _adopt(run: Run, step: Step, twin: Run) -> Manifest:
    """Link a twin's files into this run: the run folder stays whole even when the twin is removed."""
    found = twin.need(step.name)
    part = _fresh(run.root / f".{step.name}.part")
    shutil.copytree(twin.step(step.name), part, copy_function=link, dirs_exist_ok=True)
    (part / MANIFEST_FILE).unlink()
    return _publish(
        run, step, part, found.model_copy(update={"reused_from": twin.id, "seconds": 0.0})
    )


def _work(run: Run, step: Step, key: str) -> Manifest:
    part = run.root / f".{step.name}.part"
    mark = part / "key.json"
    if not (mark.is_file() and json.loads(mark.read_bytes()) == key):
        _fresh(part)
        write_atomically(mark, json.dumps(key).encode())
    for left in run.root.glob(f"{SCRATCH}*"):  # by a process that was killed
        shutil.rmtree(left, ignore_errors=True)
    started = time.perf_counter()
    with disk_errors(part):
        outcome: Outcome = named(step.function)(run, part, **passed_functions(step))
    mark.unlink()
    for left in part.rglob(".*.part"):  # by a write that was killed
        left.unlink()
    manifest = Manifest(
        step=step.name,
        key=key,
        files={
            str(file.relative_to(part)): sha256(file)
            for file in sorted(part.rglob("*"))
            if file.is_file()
        },
        rows=outcome.rows,
        info=outcome.info,
        seconds=round(time.perf_counter() - started, 3),
        seed=run.config.seed,
    )
    return _publish(run, step, part, manifest)


def passed_functions(step: Step) -> dict[str, Any]:
    """The functions that the table passes to a step's function, by argument."""
    return {argument: named(function) for argument, function in step.passes.items()}


def _publish(run: Run, step: Step, part: Path, manifest: Manifest) -> Manifest:
    write_atomically(part / MANIFEST_FILE, manifest.model_dump_json(indent=2).encode())
    shutil.rmtree(run.step(step.name), ignore_errors=True)
    os.replace(part, run.step(step.name))
    return manifest


def _fresh(folder: Path) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder
