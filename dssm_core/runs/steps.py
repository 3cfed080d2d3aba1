"""The steps of a run, in order, and the one function that executes any of them."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import time
from dataclasses import dataclass, field
from functools import cache, reduce
from importlib.metadata import version
from pathlib import Path
from typing import Any

from filelock import FileLock

from dssm_core.aliases import JSON
from dssm_core.errors import ArtifactError, ConfigError
from dssm_core.families import did_you_mean, named
from dssm_core.runs.layout import MANIFEST_FILE
from dssm_core.runs.run import (
    SCRATCH,
    Manifest,
    Run,
    digest,
    disk_errors,
    find_twins,
    link,
    sha256,
    write_atomically,
)

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Outcome:
    """What a step's function returns: row counts, and small plain JSON for people and later steps."""

    rows: dict[str, int] = field(default_factory=dict)
    info: JSON = field(default_factory=dict)


@dataclass(frozen=True)
class Step:
    """A step: where its function is, which settings it reads, which steps' outputs it reads.

    function: `module:name`, called as `function(run, work)`, writes files into the folder `work`,
    returns an Outcome.
    reusable: whether a finished twin in another run of the same window may stand in (False: it
    changes the world).
    outside: `module:name`, called as `outside(run)`, names the files that the step reads from
    outside the run, by name.
    """

    name: str
    function: str
    title: str
    reads: tuple[str, ...]
    needs: tuple[str, ...] = ()
    reusable: bool = True
    outside: str | None = None


STEPS = {
    step.name: step
    for step in (
        Step(
            "ingest_data",
            "dssm_core.data.ingest:ingest",
            "read the log into canonical tables",
            ("data", "features", "split.relevant"),
            outside="dssm_core.data.ingest:source_files",
        ),
        Step(
            "validate_data",
            "dssm_core.data.validate:validate",
            "check every rule, quarantine the rows that break one",
            ("data", "validation", "split", "features"),
            ("ingest_data",),
        ),
        Step(
            "split_by_time",
            "dssm_core.data.split:split",
            "train before the cutoff, test after it (or as split.kind says)",
            ("data", "split", "evaluation.ks"),
            ("ingest_data", "validate_data"),
        ),
        Step(
            "sample_negatives",
            "dssm_core.sampling.prepare:prepare",
            "fit ids on train, write the log and the sampler's tables",
            ("features", "sampler", "loss", "split"),
            ("validate_data", "split_by_time"),
            outside="dssm_core.sampling.prepare:sampler_files",
        ),
        Step(
            "train_towers",
            "dssm_core.training.trainer:train",
            "train both towers, early-stop on recall",
            (
                "seed",
                "features",
                "sampler",
                "tower",
                "item_tower",
                "loss",
                "model",
                "train",
                "split",
                "evaluation.exclude_seen",
            ),
            ("sample_negatives",),
        ),
        Step(
            "log_to_mlflow",
            "dssm_core.registry.versions:log_run",
            "log settings, curves, data and plots",
            (),
            ("validate_data", "split_by_time", "sample_negatives", "train_towers"),
            reusable=False,
        ),
        Step(
            "export_embeddings",
            "dssm_core.retrieval.embeddings:export",
            "embed every user and item as of the cutoff",
            ("features", "tower", "item_tower", "model", "split", "train.target"),
            ("sample_negatives", "train_towers"),
        ),
        Step(
            "build_index",
            "dssm_core.retrieval.index:build_index",
            "build the index that is served",
            ("seed", "index"),
            ("export_embeddings",),
        ),
        Step(
            "recall_gate",
            "dssm_core.gate.judge:judge",
            "measure the served index against floor, baselines and champion",
            (),
            ("split_by_time", "sample_negatives", "export_embeddings", "build_index"),
            reusable=False,
        ),
        Step(
            "register_model",
            "dssm_core.registry.versions:register",
            "register towers, ids and index as one version",
            (),
            ("sample_negatives", "train_towers", "export_embeddings", "build_index", "recall_gate"),
            reusable=False,
        ),
    )
}


def find_step(name: str) -> Step:
    """The step called `name`; ConfigError with a hint when there is none."""
    if name not in STEPS:
        raise ConfigError(f"unknown step {name!r}: {did_you_mean(name, list(STEPS))}")
    return STEPS[name]


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


def step_key(run: Run, step: Step) -> str:
    """Hash of the code, the settings a step reads, its inputs' content, and the files that it reads
    from outside the run.
    """
    settings = run.config.model_dump(mode="json")
    return digest(
        {
            "step": step.name,
            "code": code_version(),
            "settings": {name: _setting(settings, name) for name in step.reads}
            if step.reusable
            else settings,
            "inputs": {name: _content(run.need(name)) for name in step.needs},
            "outside": outside_files(run, step),
        }
    )


def _setting(settings: Any, name: str) -> Any:
    """The section, or the setting in it (`section.name`; None where this kind of section has none),
    that a step reads.
    """
    return reduce(lambda node, key: node.get(key), name.split("."), settings)


def outside_files(run: Run, step: Step) -> dict[str, str]:
    """sha256 of each file that a step reads from outside the run, by name."""
    if step.outside is None:
        return {}
    files: dict[str, Path] = named(step.outside)(run)
    return {name: sha256(file) for name, file in files.items()}


def _content(manifest: Manifest) -> JSON:
    """What a later step can read of a finished one; pages for people hold times of day and are not
    among it.
    """
    files = {
        name: content
        for name, content in manifest.files.items()
        if not name.startswith("data_docs/")
    }
    return {"files": files, "rows": manifest.rows, "info": manifest.info}


@cache
def code_version() -> str:
    """sha256 of this package's source and of the versions it computes with: results of other code
    are never reused.
    """
    package = Path(__file__).parents[1]
    sources = sorted(package.rglob("*.py"))
    code = [
        (str(file.relative_to(package)), hashlib.sha256(file.read_bytes()).hexdigest())
        for file in sources
    ]
    computing = (
        "duckdb",
        "faiss-cpu",
        "implicit",
        "numba",
        "numpy",
        "pandas",
        "scikit-learn",
        "scipy",
        "torch",
    )
    return digest([code, [version(name) for name in computing]])


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
        outcome: Outcome = named(step.function)(run, part)
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


def _publish(run: Run, step: Step, part: Path, manifest: Manifest) -> Manifest:
    write_atomically(part / MANIFEST_FILE, manifest.model_dump_json(indent=2).encode())
    shutil.rmtree(run.step(step.name), ignore_errors=True)
    os.replace(part, run.step(step.name))
    return manifest


def _fresh(folder: Path) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder
