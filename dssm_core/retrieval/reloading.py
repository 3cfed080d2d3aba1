"""Which bundle a server answers from: the registered one, or its latest refresh.

<refreshed>/<model>/current is a link to the latest refreshed bundle, which a refresh replaces in
one step (see operation/refresh.py). A server follows the link only to refreshes of the very bundle
that it was started with. After a promotion, the new version therefore answers from its own bundle
until it is refreshed, and never from the index of another version.
"""

from __future__ import annotations

import json
import logging
from pathlib import Path

from dssm_core.aliases import JSON
from dssm_core.errors import ArtifactError
from dssm_core.retrieval.bundle import Bundle, content_hash, open_bundle

log = logging.getLogger(__name__)
CURRENT = "current"
LINEAGE = "lineage.json"


def current_folder(root: Path, model: str) -> Path | None:
    """The folder of the latest refreshed bundle, None if there is none.

    Resolve it once and keep the result: the next refresh moves the link.
    """
    link = root / model / CURRENT
    return link.resolve() if link.exists() else None


def read_lineage(root: Path, model: str) -> JSON | None:
    """The lineage.json of the latest refreshed bundle, with its folder as `folder`.

    None if there is no refreshed bundle, or its lineage cannot be read.
    """
    folder = current_folder(root, model)
    if folder is None:
        return None
    try:
        lineage: JSON = json.loads((folder / LINEAGE).read_bytes())
        return lineage | {"folder": str(folder)}
    except (OSError, ValueError) as error:
        log.warning("%s is damaged (%s); the next refresh replaces it", folder, error)
        return None


class ReloadingBundle:
    """A registered bundle, and its refreshes below `root` (None: it is not refreshed)."""

    def __init__(self, folder: Path | str, root: Path | None = None) -> None:
        self.registered = open_bundle(folder)
        self.opened = self.registered
        self.root = root
        self.model = self.registered.config.model_name
        self.hash = content_hash(self.registered.folder) if root else ""
        self.folder: Path | None = None

    def current(self) -> Bundle:
        """The bundle to answer from. It is reopened if the link has moved.

        If the new bundle is damaged, the one opened before stays.
        """
        folder = current_folder(self.root, self.model) if self.root else None
        if folder != self.folder:
            try:
                self.opened = self._open(folder) if folder else self.registered
            except (ArtifactError, OSError, ValueError, KeyError) as error:
                log.warning("cannot open %s (%s); still serving the bundle before", folder, error)
            self.folder = folder
        return self.opened

    def _open(self, folder: Path) -> Bundle:
        lineage = json.loads((folder / LINEAGE).read_bytes())
        return open_bundle(folder) if lineage["bundle"] == self.hash else self.registered
