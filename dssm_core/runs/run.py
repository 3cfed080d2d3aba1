"""Run folders: `<runs>/<dataset>/<test day or kind of split>/<run id>/<step>/`, each step's
manifest written last.

A step is a transaction. It works in a hidden sibling `.<step>.part`, which survives a kill so that
the step can resume, and becomes `<step>` by one rename once its manifest is in it.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from pydantic import BaseModel, ConfigDict, ValidationError

from dssm_core.aliases import JSON
from dssm_core.config import Config
from dssm_core.errors import ArtifactError, ConfigError, ServiceError
from dssm_core.runs.layout import CONFIG_FILE, MANIFEST_FILE

log = logging.getLogger(__name__)

SCRATCH = ".scratch-"
SAFE_RUN_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,200}")
ORIGIN = "origin.json"  # in a run's folder


class Manifest(BaseModel):
    """What a finished step says of itself.

    key: hash of code, settings and inputs; files: sha256 of each output; rows: counts; info: small
    plain JSON.
    """

    model_config = ConfigDict(frozen=True)
    step: str
    key: str
    files: dict[str, str]
    rows: dict[str, int]
    info: JSON
    seconds: float
    seed: int
    reused_from: str | None = None


@dataclass(frozen=True)
class Run:
    """One pass over one window. `root` is its folder."""

    root: Path

    @property
    def id(self) -> str:
        """The run id: the folder's name."""
        return self.root.name

    @property
    def runs(self) -> Path:
        """The folder of all runs."""
        return self.root.parents[2]

    @cached_property
    def config(self) -> Config:
        """The settings the run was created with; they never change."""
        return Config.model_validate_json((self.root / CONFIG_FILE).read_bytes())

    def step(self, name: str) -> Path:
        """The folder of a finished step."""
        return self.root / name

    def manifest(self, name: str) -> Manifest | None:
        """The manifest of a finished step, None where it is not finished."""
        return read_manifest(self.step(name))

    def need(self, name: str) -> Manifest:
        """The manifest of a step that must be finished; ArtifactError with the command to run when
        it is not.
        """
        manifest = self.manifest(name)
        if manifest is None:
            raise ArtifactError(
                f"run {self.id!r} has no finished {name!r}: run `dssm {name} --run {self.root}` first"
            )
        return manifest


def safe_run_id(text: str) -> str:
    """Make an outside run id (Airflow's hold `:` and `+`) safe to name a folder."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", text).strip("-._")[:200] or "run"


def create_run(config: Config, runs: Path | str, run_id: str) -> Run:
    """Make (or find again) the folder of a run; ConfigError if it is there with other settings."""
    if not SAFE_RUN_ID.fullmatch(run_id):
        raise ConfigError(f"run id {run_id!r} must be letters, digits, '.', '_' and '-' only")
    root = Path(runs).resolve() / config.name / config.split.title / run_id
    file = root / CONFIG_FILE
    if file.is_file() and not _holds(file, config):
        raise ConfigError(
            f"run {run_id!r} exists with other settings in {root}: choose another run id"
        )
    write_atomically(file, config.model_dump_json(indent=2).encode())
    return Run(root)


def _holds(file: Path, config: Config) -> bool:
    """Whether a run's settings are these; what an older file leaves out has its default."""
    try:
        return (
            Config.model_validate_json(file.read_bytes()).model_dump_json()
            == config.model_dump_json()
        )
    except ValidationError:
        return False


def open_run(path: Path | str) -> Run:
    """The run in a folder; ArtifactError when there is none."""
    root = Path(path).resolve()
    if not (root / CONFIG_FILE).is_file():
        raise ArtifactError(
            f"{str(path)!r} is not a run folder (no config.json): `dssm runs` lists them"
        )
    return Run(root)


def note_origin(run: Run, tags: Mapping[str, str]) -> None:
    """Say who has started a run, as tags that its MLflow run gets when it is made."""
    write_atomically(run.root / ORIGIN, json.dumps(dict(tags)).encode())


def read_origin(run: Run) -> dict[str, str]:
    """What `note_origin` said; nothing where it did not."""
    file = run.root / ORIGIN
    found: dict[str, str] = json.loads(file.read_bytes()) if file.is_file() else {}
    return found


def find_runs(runs: Path | str) -> list[Run]:
    """All runs below a folder, oldest first; one whose settings this code cannot read is left out
    with a warning.
    """
    files = sorted(Path(runs).glob("*/*/*/config.json"), key=lambda file: file.stat().st_mtime)
    return [run for file in files if _readable(run := Run(file.parent.resolve()))]


def _readable(run: Run) -> bool:
    try:
        return bool(run.config)
    except ValidationError:
        log.warning("%s holds settings of another version: left out", run.root)
        return False


def find_twins(run: Run) -> list[Run]:
    """The other runs of the same dataset and test day (or split), newest first."""
    twins = [
        twin
        for twin in find_runs(run.root.parents[2])
        if twin.root.parent == run.root.parent and twin != run
    ]
    return twins[::-1]


def read_manifest(folder: Path) -> Manifest | None:
    """The manifest in a folder, None where there is none; ArtifactError where it is damaged."""
    file = folder / MANIFEST_FILE
    if not file.is_file():
        return None
    try:
        return Manifest.model_validate_json(file.read_bytes())
    except ValidationError as error:
        raise ArtifactError(f"{file} is damaged: remove {folder} and run the step again") from error


def write_atomically(file: Path, content: bytes) -> None:
    """Write a file so that a reader sees the old or the new content, never a part."""
    with disk_errors(file):
        file.parent.mkdir(parents=True, exist_ok=True)
        part = file.with_name(f".{file.name}.{os.getpid()}.part")
        try:
            part.write_bytes(content)
            os.replace(part, file)
        finally:
            part.unlink(missing_ok=True)


@contextmanager
def locked(file: Path, timeout_s: float, what: str) -> Iterator[None]:
    """Hold a lock that all processes and machines which share the disk respect. ServiceError where
    another `what` keeps it for longer.
    """
    lock = FileLock(file, timeout=timeout_s)
    with disk_errors(file):
        file.parent.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire()
        except Timeout as error:
            raise ServiceError(
                f"{file} has been held for {timeout_s:.0f} s: another {what} hangs; end it and try again"
            ) from error
    try:
        yield
    finally:
        lock.release()


def scratch(folder: Path) -> tempfile.TemporaryDirectory[str]:
    """A folder on the disk of `folder` for what is not kept. What a killed process leaves of it,
    the run's next step removes.
    """
    return tempfile.TemporaryDirectory(prefix=SCRATCH, dir=folder)


def link(source: Path | str, target: Path | str) -> None:
    """A hard link; a copy where the file system has none."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


@contextmanager
def disk_errors(where: Path) -> Iterator[None]:
    """Turn an OSError of a full or read-only disk into a ServiceError that says where."""
    try:
        yield
    except OSError as error:
        raise ServiceError(
            f"cannot write {where}: {error.strerror or error}; free space or permissions, then retry"
        ) from error


def sha256(file: Path) -> str:
    """The sha256 of a file's content, hex."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def digest(value: Any) -> str:
    """The sha256 of a JSON value with sorted keys, hex."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()
