"""A step's key: the hash of everything that its result depends on. Equal keys, equal results."""

from __future__ import annotations

from functools import reduce
from pathlib import Path
from typing import Any

from dssm_core.aliases import JSON
from dssm_core.families import named
from dssm_core.runs.code_version import code_version
from dssm_core.runs.files import digest, sha256
from dssm_core.runs.manifest import Manifest
from dssm_core.runs.run import Run
from dssm_core.runs.table import Step

FOR_PEOPLE = (".html", ".png")  # pages and pictures: no step reads them
DATA_DOCS = "data_docs/"


def step_key(run: Run, step: Step) -> str:
    """Hash of the code that a step reaches, the settings that it reads, the content of its inputs,
    and what it reads from outside the run.

    A step that cannot be reused depends on all settings.
    """
    settings = run.config.deciding()
    read = {name: _setting(settings, name) for name in step.reads}
    return digest(
        {
            "step": step.name,
            "code": step_code_version(step),
            "settings": read if step.reusable else settings,
            "inputs": {name: _content(run.need(name)) for name in step.needs},
            "outside": outside_content(run, step),
        }
    )


def step_code_version(step: Step) -> str:
    """The version of the code that decides a step's numbers: not that of `step.passes`, nor that of
    `step.outside`, which says what identifies the content.
    """
    return code_version(step.function)


def outside_content(run: Run, step: Step) -> dict[str, str]:
    """What a step reads from outside the run, by name: the SHA-256 of a file, or the text that
    identifies the content of what is no file.
    """
    if step.outside is None:
        return {}
    found: dict[str, Path | str] = named(step.outside)(run)
    return {name: hash_of(content) for name, content in found.items()}


def hash_of(content: Path | str) -> str:
    """The SHA-256 of a file; a text is returned as it is."""
    return sha256(content) if isinstance(content, Path) else content


def _setting(settings: Any, name: str) -> Any:
    """A section, or a setting in it (`section.name`; None if this kind of section has none)."""
    return reduce(lambda node, key: node.get(key), name.split("."), settings)


def _content(manifest: Manifest) -> JSON:
    """What a later step can read of a finished one: all but the pages and pictures for people."""
    files = {
        name: content
        for name, content in manifest.files.items()
        if not name.startswith(DATA_DOCS) and Path(name).suffix not in FOR_PEOPLE
    }
    return {"files": files, "rows": manifest.rows, "info": manifest.info}
