"""Which bundle a server answers from: the registered one, or its latest refresh.

<refreshed>/<model>/current is a link to the latest refreshed bundle, which a refresh replaces in
one step (see operation/refresh.py). A server follows the link only to refreshes of the very bundle
that it was started with. After a promotion, the new version therefore answers from its own bundle
until it is refreshed, and never from the index of another version.

A damaged refresh is never served: its files are compared with the hash in its lineage.json, all of
it is opened, the user tower included, and a request is answered before it replaces what is served.
"""

from __future__ import annotations

import json
import logging
import os
import threading
from pathlib import Path

from dssm_core.aliases import JSON
from dssm_core.errors import ArtifactError
from dssm_core.retrieval.bundle import Bundle, content_hash, open_bundle
from dssm_core.runs.files import digest, hashes

log = logging.getLogger(__name__)
CURRENT = "current"
LINEAGE = "lineage.json"
CONTENT = "content_hash"  # in lineage.json: of all other files; refreshes of older code lack it
NAMES = ("model", "version", "as_of", "bundle", "key")  # texts in lineage.json


def current_folder(root: Path, model: str) -> Path | None:
    """The folder of the latest refreshed bundle, None if there is none.

    Resolve it once and keep the result: the next refresh moves the link.
    """
    link = root / model / CURRENT
    return Path(os.path.realpath(link)) if os.path.lexists(link) else None


def read_lineage(root: Path, model: str) -> JSON | None:
    """The lineage.json of the latest refreshed bundle, with its folder as `folder`.

    None if there is no refreshed bundle, or its lineage cannot be read.
    """
    folder = current_folder(root, model)
    if folder is None:
        return None
    try:
        return lineage_of(folder) | {"folder": str(folder)}
    except Exception as error:  # whatever is in a damaged file
        log.warning("%s is damaged (%s); the next refresh replaces it", folder, error)
        return None


def is_whole(lineage: JSON) -> bool:
    """Whether the files beside a lineage of `read_lineage` are those that were written."""
    return bool(lineage.get(CONTENT) == refreshed_hash(Path(lineage["folder"])))


def refreshed_hash(folder: Path) -> str:
    """The hash of a refreshed bundle: of all its files but lineage.json, which stores it."""
    return digest({name: sha for name, sha in hashes(folder).items() if name != LINEAGE})


def open_whole(folder: Path) -> Bundle:
    """Open a bundle with its user tower, and let it answer a request.

    Raises ArtifactError with the reason if anything fails.
    """
    try:
        bundle = open_bundle(folder)
        bundle.try_out()
    except Exception as error:  # of damaged files each library raises its own
        raise ArtifactError(
            f"bundle {folder} cannot answer: {type(error).__name__}: {error}"
        ) from error
    return bundle


class ReloadingBundle:
    """A registered bundle, and its refreshes below `root` (None: it is not refreshed)."""

    def __init__(self, folder: Path | str, root: Path | None = None) -> None:
        self.registered = open_whole(Path(folder))
        self.opened = self.registered
        self.root = root
        self.model = self.registered.config.model_name
        self.hash = content_hash(self.registered.folder) if root else ""
        self.position: tuple[str, int, int] | None = None
        self.lock = threading.Lock()

    def current(self) -> Bundle:
        """The bundle to answer from. If the link has moved, the new bundle is opened first.

        The bundle opened before stays if the new one is damaged, which is logged and not tried
        again, and answers the other threads while one opens the new one.
        """
        position = _position(self.root / self.model / CURRENT) if self.root else None
        if position != self.position and self.lock.acquire(blocking=False):
            folder = position and Path(position[0])
            try:
                self.opened = self._open(folder) if folder else self.registered
            except Exception as error:  # a damaged refresh must not stop a server
                log.warning("%s is not served, but the bundle before: %s", folder, error)
            finally:
                self.position = position
                self.lock.release()
        return self.opened

    def _open(self, folder: Path) -> Bundle:
        """The refreshed bundle in `folder`; the registered one if it is of another version."""
        lineage = lineage_of(folder)
        if lineage["bundle"] != self.hash:
            return self.registered
        if CONTENT in lineage and (content := refreshed_hash(folder)) != lineage[CONTENT]:
            raise ArtifactError(
                f"the hash of its files is {content}, but {lineage[CONTENT]} was written"
            )
        return open_whole(folder)


def _position(link: Path) -> tuple[str, int, int] | None:
    """The target of the link, and the inode and time that change when the link is replaced."""
    if not os.path.lexists(link):
        return None
    made = os.lstat(link)
    return os.path.realpath(link), made.st_ino, made.st_mtime_ns


def lineage_of(folder: Path) -> JSON:
    """What lineage.json says of a refreshed bundle. Raises ValueError if its origin is missing."""
    lineage = json.loads((folder / LINEAGE).read_bytes())
    if not isinstance(lineage, dict) or not all(
        isinstance(lineage.get(name), str) for name in NAMES
    ):
        raise ValueError(f"{LINEAGE} does not name {', '.join(NAMES)}")
    return lineage
