"""What a step's function returns (Outcome) and what its folder records about it (Manifest)."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from dssm_core.aliases import JSON
from dssm_core.errors import ArtifactError
from dssm_core.runs.layout import MANIFEST_FILE


@dataclass(frozen=True)
class Outcome:
    """What a step's function returns: row counts, and plain JSON for people and later steps."""

    rows: dict[str, int] = field(default_factory=dict)
    info: JSON = field(default_factory=dict)


class Manifest(BaseModel):
    """The record of a finished step.

    key: hash of code, settings and inputs; files: SHA-256 of each output by its path in the step's
    folder; rows and info: the step's outcome; reused_from: id of the run that did the work.
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

    @property
    def line(self) -> str:
        """The outcome in one line: rows, and the seconds or the run that did the work."""
        counts = (f"{count:,} {title}" for title, count in self.rows.items())
        took = f"reused from {self.reused_from}" if self.reused_from else f"{self.seconds:.1f} s"
        return f"{self.step}: {', '.join([*counts, took])}"


def read_manifest(folder: Path) -> Manifest | None:
    """The manifest in a step's folder, None if there is none; ArtifactError if it is damaged."""
    file = folder / MANIFEST_FILE
    if not file.is_file():
        return None
    try:
        return Manifest.model_validate_json(file.read_bytes())
    except ValidationError as error:
        raise ArtifactError(f"{file} is damaged: remove {folder} and run the step again") from error
