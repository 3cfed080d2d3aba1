"""A run's folder, `<runs>/<dataset>/<test day or kind of split>/<run id>/`: one for each step."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from pydantic import ValidationError

from dssm_core.config import Config
from dssm_core.errors import ArtifactError, ConfigError
from dssm_core.runs.files import write_atomically
from dssm_core.runs.layout import CHANGED_FILE, CONFIG_FILE
from dssm_core.runs.manifest import Manifest, read_manifest

log = logging.getLogger(__name__)

ORIGIN = "origin.json"  # in a run's folder: who started it
SAFE_RUN_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,200}")


@dataclass(frozen=True)
class Run:
    """One pass of one dataset's data through the steps. `root` is its folder."""

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
        """The settings that the run was created with; they never change."""
        return Config.model_validate_json((self.root / CONFIG_FILE).read_bytes())

    @cached_property
    def changed(self) -> tuple[str, ...]:
        """The settings that were laid over the config file, as `key.path=value`."""
        file = self.root / CHANGED_FILE
        return tuple(json.loads(file.read_bytes())) if file.is_file() else ()

    def step(self, name: str) -> Path:
        """The folder of a finished step."""
        return self.root / name

    def failed(self, name: str) -> Path:
        """The folder with what a step wrote before it failed; not there if it did not fail."""
        return self.root / f"{name}.failed"

    def manifest(self, name: str) -> Manifest | None:
        """The manifest of a finished step, None if the step is not finished."""
        return read_manifest(self.step(name))

    def need(self, name: str) -> Manifest:
        """The manifest of a finished step; ArtifactError with the command to run if it is not
        finished.
        """
        manifest = self.manifest(name)
        if manifest is None:
            raise ArtifactError(
                f"run {self.id!r} has no finished {name!r}: "
                f"run `dssm {name} --run {self.root}` first"
            )
        return manifest


def safe_run_id(text: str) -> str:
    """Turn an outside run id (Airflow's contain `:` and `+`) into a safe folder name."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", text).strip("-._")[:200] or "run"


def create_run(config: Config, runs: Path | str, run_id: str) -> Run:
    """Create a run's folder, or return the existing one with the same settings.

    ConfigError if the run id is not a safe folder name or exists with other settings.
    """
    if not SAFE_RUN_ID.fullmatch(run_id):
        raise ConfigError(f"run id {run_id!r} must be letters, digits, '.', '_' and '-' only")
    root = Path(runs).resolve() / config.name / config.split.title / run_id
    file = root / CONFIG_FILE
    if file.is_file() and not _same_settings(file, config):
        raise ConfigError(
            f"run {run_id!r} exists with other settings in {root}: choose another run id"
        )
    write_atomically(file, config.model_dump_json(indent=2).encode())
    if config.changed:
        write_atomically(root / CHANGED_FILE, json.dumps(config.changed).encode())
    return Run(root)


def _same_settings(file: Path, config: Config) -> bool:
    """Whether a stored config equals `config`; settings that an older file lacks have defaults."""
    try:
        stored = Config.model_validate_json(file.read_bytes())
    except ValidationError:
        return False
    return stored.deciding() == config.deciding()


def open_run(path: Path | str) -> Run:
    """The run in a folder; ArtifactError if there is none."""
    root = Path(path).resolve()
    if not (root / CONFIG_FILE).is_file():
        raise ArtifactError(
            f"{str(path)!r} is not a run folder (no config.json): `dssm runs` lists them"
        )
    return Run(root)


def note_origin(run: Run, tags: Mapping[str, str]) -> None:
    """Store who started a run, as tags for its MLflow run."""
    write_atomically(run.root / ORIGIN, json.dumps(dict(tags)).encode())


def read_origin(run: Run) -> dict[str, str]:
    """The tags that `note_origin` stored; empty if it stored none."""
    file = run.root / ORIGIN
    tags: dict[str, str] = json.loads(file.read_bytes()) if file.is_file() else {}
    return tags


def find_runs(runs: Path | str) -> list[Run]:
    """All runs below a folder, oldest first.

    A run whose settings this version cannot read is left out with a warning.
    """
    return _readable_runs(Path(runs).glob(f"*/*/*/{CONFIG_FILE}"))


def find_twins(run: Run) -> list[Run]:
    """The other runs of the same dataset and test day (or split), newest first.

    Reads the settings of no other dataset or day.
    """
    siblings = _readable_runs(run.root.parent.glob(f"*/{CONFIG_FILE}"))
    return [twin for twin in reversed(siblings) if twin != run]


def _readable_runs(files: Iterable[Path]) -> list[Run]:
    oldest_first = sorted(files, key=lambda file: file.stat().st_mtime)
    runs = (Run(file.parent.resolve()) for file in oldest_first)
    return [run for run in runs if _readable(run)]


def _readable(run: Run) -> bool:
    try:
        return bool(run.config)
    except ValidationError:
        log.warning("%s has settings of another version: left out", run.root)
        return False
