"""The bundle that a command works on: of a registered version, or of a run."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dssm_core.aliases import JSON
from dssm_core.errors import ConfigError
from dssm_core.registry.versions import CHAMPION, RegisteredModel, fetch
from dssm_core.retrieval.bundle import Bundle, assemble, open_bundle
from dssm_core.retrieval.reloading import ReloadingBundle, lineage_of
from dssm_core.runs.run import Run


@contextmanager
def opened(
    of: RegisteredModel | Run, version: str | None = None, refreshed: Path | None = None
) -> Iterator[tuple[Bundle, JSON]]:
    """The bundle of a run or of a version of a registered model, and what it is the bundle of.

    version: a number or an alias; None: the champion. refreshed: a folder of refreshed bundles; the
    version's latest refresh, if it has one, is opened instead of it, as a server does. Raises
    ConfigError if there is no such version, or if a version is given for a run.
    """
    if isinstance(of, Run) and version is not None:
        raise ConfigError(
            f"version {version!r} is of a registered model, but run {of.id!r} has no versions: give"
            " the run or the version"
        )
    with tempfile.TemporaryDirectory() as folder:
        if isinstance(of, Run):
            yield open_bundle(assemble(of, Path(folder) / "bundle")), {"run": of.id}
        else:
            number = _version_number(of, version)
            fetched = fetch(of, number, Path(folder)).folder
            if refreshed:
                bundle = ReloadingBundle(fetched, refreshed).current()
            else:
                bundle = open_bundle(fetched)
            about = {"model": of.name, "version": number}
            if bundle.folder != fetched:
                about["refreshed_as_of"] = lineage_of(bundle.folder)["as_of"]
            yield bundle, about


def _version_number(store: RegisteredModel, version: str | None) -> str:
    """The number of a version, given by number or alias; None: the champion."""
    if version is not None and version.isdigit():
        store.tags(version)  # raises an error that lists the versions if there is none
        return version
    aliases = store.aliases()
    if version is None and CHAMPION not in aliases:
        raise ConfigError(
            f"model {store.name!r} in {store.uri} has no champion: promote a version, or give one"
        )
    alias = version or CHAMPION
    if alias not in aliases:
        names = ", ".join(sorted(aliases)) or "none"
        raise ConfigError(
            f"model {store.name!r} in {store.uri} has no {alias}: its aliases are {names}. Give"
            " one of them, or a version number"
        )
    return aliases[alias]
