"""JSON lines: a file of one JSON object a line, to which rows are appended as they arise."""

from __future__ import annotations

import json
from pathlib import Path

from dssm_core.aliases import JSON


def read_json_lines(file: Path) -> list[JSON]:
    """The objects of a file, in its order; none if there is no file.

    A last line without a line end is skipped: the process that wrote it was killed.
    """
    if not file.is_file():
        return []
    lines = file.read_text(encoding="utf-8").splitlines(keepends=True)
    return [json.loads(line) for line in lines if line.endswith("\n")]


def append_json_line(file: Path, row: JSON) -> None:
    """Append one object to a file."""
    with file.open("a", encoding="utf-8") as stream:
        stream.write(json_line(row))


def json_line(row: JSON) -> str:
    """An object as one line, with sorted keys, so that equal objects are equal lines."""
    return json.dumps(row, sort_keys=True) + "\n"
