"""Which bundle to answer from: the registered one, or what it was refreshed to since.

<refreshed>/<model>/current is a link that moves in one step (see refresh.py). Only a refresh of the
very same bundle counts, whatever the
link names: after a promotion the new version answers by itself until it is refreshed, and never
with another version's index.
"""

from __future__ import annotations

import json
import logging
from pathlib import Path

from dssm_core.aliases import JSON
from dssm_core.errors import ArtifactError
from dssm_core.retrieval.bundle import Bundle, content_hash, open_bundle

log = logging.getLogger(__name__)
CURRENT, LINEAGE = "current", "lineage.json"


def current_folder(root: Path, model: str) -> Path | None:
    """The folder of the refreshed bundle that is served, None where there is none. Open it, then
    keep it: the next refresh is another.
    """
    link = root / model / CURRENT
    return link.resolve() if link.exists() else None


def read_lineage(root: Path, model: str) -> JSON | None:
    """Where the refreshed bundle that is served came from: lineage.json, and its folder. None also
    where that cannot be read.
    """
    folder = current_folder(root, model)
    try:
        return (
            json.loads((folder / LINEAGE).read_bytes()) | {"folder": str(folder)}
            if folder
            else None
        )
    except (OSError, ValueError) as error:
        log.warning("%s is damaged, the next refresh replaces it: %s", folder, error)
        return None


class ReloadingBundle:
    """A registered bundle in a folder, and its refreshes below `root` (None: it is never
    refreshed).
    """

    def __init__(self, folder: Path | str, root: Path | None = None) -> None:
        self.registered = self.opened = open_bundle(folder)
        self.root, self.model = root, self.registered.config.model_name
        self.hash = content_hash(self.registered.folder) if root else ""
        self.found: Path | None = None

    def current(self) -> Bundle:
        """The bundle to answer from, opened anew where the link has moved. Where what it names is
        damaged, the one before goes on.
        """
        found = current_folder(self.root, self.model) if self.root else None
        if found != self.found:
            try:
                self.opened = self._open(found) if found else self.registered
            except (ArtifactError, OSError, ValueError, KeyError) as error:
                log.warning(
                    "%s cannot be opened, what was served before is served on: %s", found, error
                )
            self.found = found
        return self.opened

    def _open(self, found: Path) -> Bundle:
        told = json.loads((found / LINEAGE).read_bytes())
        return open_bundle(found) if told["bundle"] == self.hash else self.registered
