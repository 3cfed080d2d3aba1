"""A step's key: the hash of everything that its result depends on. Equal keys, equal results."""

from __future__ import annotations

import hashlib
from functools import cache, reduce
from importlib.metadata import version
from pathlib import Path
from typing import Any

from dssm_core.aliases import JSON
from dssm_core.families import named
from dssm_core.runs.files import digest, sha256
from dssm_core.runs.manifest import Manifest
from dssm_core.runs.run import Run
from dssm_core.runs.table import Step

FOR_PEOPLE = (".html", ".png")  # pages and pictures: no step reads them


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
        if not name.startswith("data_docs/") and Path(name).suffix not in FOR_PEOPLE
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
