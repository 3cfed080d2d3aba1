"""Refresh the champion between two trainings: its vectors and its index as of a later time.

A refresh keeps the towers and computes again what depends on the log:

- vectors of the users with a click since the training, and of new users; or the hot list that
  answers new users
- vectors of all items if item activity is on (their ages change even without a click), else only
  those of new items
- the index

Towers, vocabularies and scales are copied from the registered bundle.

<refreshed>/<model>/<version>/<as of>-<key>/ is a bundle like the registered one, and lineage.json
in it says where it comes from. <refreshed>/<model>/current is a link to the one that is served. A
refresh depends only on the registered bundle and the clicks, never on an earlier refresh, so errors
do not accumulate, and a click that arrives late is in the next refresh. (A late click of a day that
has landed is in it once that day is landed again.)
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from dssm_core.aliases import JSON, Floats
from dssm_core.columns import ITEM, TIME, USER
from dssm_core.config import Config
from dssm_core.data.splits.protocol import Window
from dssm_core.data.vectors import vector_files
from dssm_core.errors import ConfigError, ConflictError
from dssm_core.operation.latest_clicks import Origin, origins, read_latest
from dssm_core.registry.versions import CHAMPION, RegisteredModel, fetch
from dssm_core.retrieval.bundle import Bundle, content_hash, open_bundle
from dssm_core.retrieval.index import make_index
from dssm_core.retrieval.latest_tables import LatestTables
from dssm_core.retrieval.reloading import (
    CONTENT,
    CURRENT,
    LINEAGE,
    current_folder,
    is_whole,
    open_whole,
    read_lineage,
    refreshed_hash,
)
from dssm_core.retrieval.snapshots import Snapshot, Timeline, trained_window
from dssm_core.runs.code_version import code_version
from dssm_core.runs.files import digest, disk_errors, locked, sha256, write_atomically
from dssm_core.runs.layout import (
    ITEM_EMBEDDINGS_FILE,
    ITEM_IDS_FILE,
    USER_EMBEDDINGS_FILE,
    USER_IDS_FILE,
)
from dssm_core.runs.run import SAFE_RUN_ID

log = logging.getLogger(__name__)

CODE = "dssm_core.operation.refresh:refresh"  # the key of a refresh covers the code that it reaches
LOCK_TIMEOUT_S = 600.0
CLOCK_TOLERANCE_S = 300  # by which the clocks of two machines may differ


def refresh_registered(
    store: RegisteredModel,
    version: str | None,
    config: Config,
    as_of_ms: int,
    root: Path,
    days: Path | None = None,
) -> JSON:
    """Refresh a registered version (None: the champion). Returns its lineage, see `refresh`.

    Raises ConfigError if there is no such version, and ConflictError if another version became
    champion in the meantime.
    """
    number = version or store.aliases().get(CHAMPION)
    if number is None:
        raise ConfigError(
            f"model {store.name!r} in {store.uri} has no champion: promote a version, or give one"
        )
    store.tags(number)  # raises an error that lists the versions if there is none of this number

    def check_champion() -> None:
        champion = store.aliases().get(CHAMPION)
        if version is None and champion != number:
            raise ConflictError(
                f"champion of {store.name!r} became {champion or 'none'} while version {number} was"
                " refreshed: this refresh is dropped, and the next one uses the new champion"
            )

    with tempfile.TemporaryDirectory() as folder:
        base = fetch(store, number, Path(folder)).folder
        return refresh(base, store.name, number, config, as_of_ms, root, days, check_champion)


def refresh(
    base: Path,
    model: str,
    version: str,
    config: Config,
    as_of_ms: int,
    root: Path,
    days: Path | None = None,
    before_swap: Callable[[], None] = lambda: None,
) -> JSON:
    """Refresh the bundle in `base` as of a time, and let `current` below `root` point to it.

    Returns its lineage, with the folder. If the bundle, the clicks and the time are those of the
    current refresh, nothing is computed.

    config: its data.source holds the latest clicks. days: the folder of landed days, which are read
    before data.source. before_swap: called before the link moves; it raises if the link must stay.
    Raises ConfigError if the time is before the bundle's own cutoff, and ConflictError if `current`
    is of a later time.
    """
    bundle = open_bundle(base)
    window = _check(bundle, model, config, as_of_ms)
    settings = _with_sources_of(bundle.config, config)
    start_ms = as_of_ms - (window.cutoff_ms - window.start_ms)
    sources = origins(settings, start_ms, as_of_ms, days)
    about: JSON = {
        "model": model,
        "version": version,
        "as_of": _iso(as_of_ms),
        "bundle": content_hash(base),
        "read_from": [origin.holds for origin in sources],
    }
    if files := vector_files(settings.features.columns):
        about["read_from"].append({"files": {name: sha256(file) for name, file in files.items()}})
    about["key"] = digest([about, code_version(CODE)])
    name = f"{version}/{about['as_of'].replace(':', '')}-{about['key'][:8]}"
    with _locked_work_folder(root / model) as work:
        current = read_lineage(root, model)
        if current and current["key"] == about["key"] and is_whole(current):
            return current
        if current and current["version"] == version and current["as_of"] > about["as_of"]:
            raise ConflictError(
                f"{model} version {version} is refreshed as of {current['as_of']} already, which is"
                f" later than {about['as_of']}: there is nothing to do"
            )
        about |= _write_bundle(bundle, settings, as_of_ms, sources, work)
        about[CONTENT] = refreshed_hash(work / "bundle")
        write_atomically(work / "bundle" / LINEAGE, json.dumps(about, indent=2).encode())
        open_whole(work / "bundle")  # what cannot answer must not be linked
        before_swap()
        _swap(root / model, work / "bundle", name)
    return about | {"folder": str(current_folder(root, model))}


def _with_sources_of(config: Config, other: Config) -> Config:
    """A config that reads the log and the files of vectors that another one names."""
    data = config.data.model_copy(update={"source": other.data.source})
    columns = config.features.columns.with_files_of(other.features.columns)
    features = config.features.model_copy(update={"columns": columns})
    return config.model_copy(update={"data": data, "features": features})


def past_ms(time: datetime, now: datetime) -> int:
    """A time (in UTC if it has no zone) as ms.

    Raises ConfigError if it is in the future: item ages would be wrong, and all refreshes until
    then would be refused as earlier ones.
    """
    time = time if time.tzinfo else time.replace(tzinfo=UTC)
    if (time - now).total_seconds() > CLOCK_TOLERANCE_S:
        raise ConfigError(
            f"{time:%Y-%m-%dT%H:%M:%S%z} is in the future: give the time of a past moment, with its"
            " time zone, or in UTC"
        )
    return int(time.timestamp() * 1000)


def without_file_names(lineage: JSON) -> JSON:
    """A lineage with a count and one hash in place of the hash of each file, of which there may be
    thousands.
    """
    sources = []
    for source in lineage["read_from"]:
        files = source.get("files")
        sources.append({"files": len(files), "sha256": digest(files)} if files else source)
    return lineage | {"read_from": sources}


def _check(bundle: Bundle, model: str, config: Config, as_of_ms: int) -> Window:
    """The bundle's train window. Raises ConfigError if model, config and time do not match."""
    window = trained_window(bundle.config)
    if not SAFE_RUN_ID.fullmatch(model) or config.model_name != bundle.config.model_name:
        raise ConfigError(
            f"config {config.name!r} is not that of model {model!r}, which was trained with config"
            f" {bundle.config.name!r}: give that one"
        )
    if as_of_ms < window.cutoff_ms:
        raise ConfigError(
            f"{model} cannot be refreshed as of {_iso(as_of_ms)}: it was trained on everything"
            f" before {_iso(window.cutoff_ms)}; give a later time"
        )
    return window


def _write_bundle(
    bundle: Bundle, config: Config, as_of_ms: int, sources: list[Origin], work: Path
) -> JSON:
    """Write the refreshed bundle to `work`/bundle. Returns counts of what was read and embedded."""
    window = trained_window(config)
    start_ms = as_of_ms - (window.cutoff_ms - window.start_ms)
    latest, rows = read_latest(config, start_ms, as_of_ms, sources, work / "clicks")
    snapshot = Timeline.of(bundle.folder, latest).as_of(as_of_ms)
    exported: Floats = np.load(
        bundle.folder / ITEM_EMBEDDINGS_FILE, mmap_mode="r", allow_pickle=False
    )
    part = work / "bundle"
    with disk_errors(part):
        shutil.copytree(bundle.folder, part)  # no links: the files of the index are overwritten
        items = snapshot.embed_items(exported)
        users = snapshot.embed_all_users(bundle.user_vectors)
        np.save(part / ITEM_EMBEDDINGS_FILE, items)
        np.save(part / USER_EMBEDDINGS_FILE, users)
        snapshot.item_ids.save(part / ITEM_IDS_FILE, ITEM, lookup=True)
        snapshot.user_ids.save(part / USER_IDS_FILE, USER, lookup=True)
        snapshot.catalogue.save(part)
        snapshot.seen_items(bundle.seen).save(part)
        if hot := snapshot.hot_list(bundle.hot):
            hot.save(part)
        index = make_index(bundle.config, items, users, part)
    return {
        "clicks": rows | _count_clicks(latest, window.cutoff_ms),
        "embedded": _count_embedded(snapshot, bundle, exported),
        "index": index,
    }


def _count_clicks(latest: LatestTables, cutoff_ms: int) -> JSON:
    """The number of clicks since the training, and the time of the newest click."""
    times = latest.clicks[TIME]
    since = int((times >= cutoff_ms).sum())
    if not since:
        log.warning("no click since the training of the model: check that the log still arrives")
    return {"since_training": since, "newest": _iso(int(times.max()))}


def _count_embedded(snapshot: Snapshot, bundle: Bundle, exported: Floats) -> JSON:
    """The numbers of items and users that were embedded, and how many of them are new."""
    new_items = snapshot.n_items - 1 - len(exported)
    all_items = bundle.config.features.activity.enabled
    return {
        "items": snapshot.n_items - 1 if all_items else new_items,
        "new_items": new_items,
        "users": len(snapshot.active_users),
        "new_users": snapshot.n_users - len(bundle.user_vectors),
    }


@contextmanager
def _locked_work_folder(folder: Path) -> Iterator[Path]:
    """An empty work folder, removed at the end; a lock allows one refresh of a model at a time."""
    work = folder / ".part"
    with locked(folder / ".lock", LOCK_TIMEOUT_S, "refresh"):
        shutil.rmtree(work, ignore_errors=True)  # left by a refresh that was killed
        (work / "clicks").mkdir(parents=True)
        try:
            yield work
        finally:
            shutil.rmtree(work, ignore_errors=True)


def _swap(folder: Path, part: Path, name: str) -> None:
    """Move a written bundle to `folder`/`name`, and let `current` point to it.

    Each of the two is one rename. The previous bundle stays for those who still read it; older ones
    are removed.
    """
    target = folder / name
    previous = (folder / CURRENT).resolve()
    link = folder / f".{CURRENT}"
    with disk_errors(folder):
        shutil.rmtree(target, ignore_errors=True)  # left by a refresh killed before its link moved
        target.parent.mkdir(exist_ok=True)
        os.replace(part, target)
        os.sync()  # after a power cut, the link must not point to files that were not written
        link.unlink(missing_ok=True)
        link.symlink_to(name)
        os.replace(link, folder / CURRENT)
    for lineage in folder.glob(f"*/*/{LINEAGE}"):
        if lineage.parent.resolve() not in (previous, target.resolve()):
            shutil.rmtree(lineage.parent, ignore_errors=True)


def _iso(time_ms: int) -> str:
    return datetime.fromtimestamp(time_ms / 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
