"""Whether the files of a version are those that were registered.

The tags of a version hold a hash of its bundle, of its code, and of all its files. Whoever fetches
the version compares them before anything of it is read or run. The hashes of bundle and code are
also logged with the model, so that a server without MLflow can compare them. SECURITY.md says what
this protects from.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path

from dssm_core.errors import ArtifactError
from dssm_core.runs.files import digest, hashes

CONTENT_HASH_TAG = "dssm.content_hash"  # the only hash of versions that older code registered
CODE_HASH_TAG = "dssm.code_hash"
FILES_HASH_TAG = "dssm.files_hash"
RUN_TAG = "dssm.run"
BUNDLE = "artifacts/bundle"
CODE = "code/dssm_core"
PARTS = {CONTENT_HASH_TAG: BUNDLE, CODE_HASH_TAG: CODE, FILES_HASH_TAG: ""}
CACHE = "__pycache__"  # Python writes it beside code that it runs
META = "registered_model_meta"  # MLflow writes it when it downloads a version
PACKAGE = Path(__file__).parents[1]


class ChangedVersion(ArtifactError):
    """The files of a version are not those that were registered."""

    def __init__(self, version: str, message: str) -> None:
        super().__init__(message)
        self.version = version


def code_hash() -> str:
    """The hash of this code, as it is logged with a model."""
    return digest(_without_cache(hashes(PACKAGE)))


def part_hashes(model: Path) -> dict[str, str]:
    """The hash of each part of a logged model's folder, by the tag that stores it."""
    files = _without_cache(hashes(model))
    files.pop(META, None)
    return {tag: digest(_below(part, files)) for tag, part in PARTS.items()}


def difference(now: Mapping[str, str], recorded: Mapping[str, str]) -> str | None:
    """Both hashes of the first part whose hash is not the one recorded, None if all are.

    A part that has no recorded hash is not compared.
    """
    for tag, part in PARTS.items():
        if recorded.get(tag, now[tag]) != now[tag]:
            what = part or "all its files"
            return f"the hash of {what} is {now[tag]}, but {recorded[tag]} was recorded ({tag})"
    return None


def check_version_files(model: Path, version: str, title: str, tags: Mapping[str, str]) -> None:
    """Compare the files of a version in the folder `model` with its tags.

    title: of the version, for the message. Raises ChangedVersion with both hashes of a part that
    differs. Python's caches are removed, since their content is not compared.
    """
    for cache in list(model.rglob(CACHE)):
        shutil.rmtree(cache)
    if problem := difference(part_hashes(model), tags):
        raise ChangedVersion(
            version,
            f"{title} was changed after it was registered: {problem}. Nothing of it is used. Go "
            "back to another version with `dssm rollback`, or register its run again: remove "
            f"register_model from the folder of run {tags.get(RUN_TAG)!r}, then `dssm "
            "register_model --run FOLDER`",
        )


def check_served(bundle: Path) -> None:
    """Compare the logged model around a served bundle with the hashes in its own MLmodel.

    Raises ArtifactError with both hashes. A bundle outside a logged model is not compared.
    """
    from mlflow.models import Model

    model = bundle.parents[1]
    if not (model / "MLmodel").is_file():
        return
    if problem := difference(part_hashes(model), Model.load(str(model)).metadata or {}):
        raise ArtifactError(
            f"the model in {model} was changed after it was registered: {problem}. Download the "
            "version again, register its run again, or serve another version"
        )


def _below(part: str, files: Mapping[str, str]) -> dict[str, str]:
    """The files below a folder, by their path in it."""
    start = f"{part}/" if part else ""
    return {name[len(start) :]: sha for name, sha in files.items() if name.startswith(start)}


def _without_cache(files: Mapping[str, str]) -> dict[str, str]:
    return {name: sha for name, sha in files.items() if CACHE not in Path(name).parts}
