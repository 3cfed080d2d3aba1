"""A folder of Parquet files."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path

import pyarrow.parquet as pq

from dssm_core.aliases import JSON
from dssm_core.operation.targets.protocol import LOCK_TIMEOUT_S, Content, overtaken
from dssm_core.runs.files import disk_errors, locked, write_atomically


@dataclass(frozen=True)
class ParquetTarget:
    """<folder>/<model>/<version>/<content>.parquet; <folder>/<model>/current.json names the
    version.
    """

    folder: Path

    def publish(
        self, model: str, version: str, contents: list[Content], about: JSON, seen: JSON | None
    ) -> None:
        """See Target."""
        folder = self.folder / model / version
        with (
            locked(self.folder / model / ".lock", LOCK_TIMEOUT_S, "publisher"),
            disk_errors(folder),
        ):
            if (now := self.current(model)) != seen:
                raise overtaken(now)
            folder.mkdir(parents=True, exist_ok=True)
            for content in contents:
                _write(content, folder / f"{content.name}.parquet")
            os.sync()  # after a power cut the pointer must not name files that were lost
            write_atomically(self._pointer(model), json.dumps(about, indent=2).encode())

    def current(self, model: str) -> JSON | None:
        """See Target."""
        file = self._pointer(model)
        return json.loads(file.read_bytes()) if file.is_file() else None

    def _pointer(self, model: str) -> Path:
        return self.folder / model / "current.json"


def _write(content: Content, file: Path) -> None:
    """Write beside the file, then rename."""
    part = file.with_suffix(".part")
    with pq.ParquetWriter(part, content.schema, compression="zstd") as writer:
        for table in content.parts():
            writer.write_table(table)
    part.replace(file)
