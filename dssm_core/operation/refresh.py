"""Between two trainings: the champion's vectors and index as of now, with the same towers, swapped
in one step.

<refreshed>/<model>/<version>/<as of>-<key>/ is a bundle like the registered one, with lineage.json
beside; <refreshed>/<model>/current is a link to the one that is served. A refresh is a function of
the registered bundle and the clicks, never of the refresh before it: nothing drifts, and a click
that came late is in the next one (of a day that has landed: once that is landed again).

What is done anew: vectors of the users who have acted since the training, and of newcomers, or the
hot list that answers them; with item activity the vectors of all items, as their ages alone have
moved, without it those of new items; the index. Towers, vocabularies and scales are copied.
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
from typing import Any

import numpy as np
import pandas as pd

from dssm_core.aliases import JSON, Floats
from dssm_core.columns import ITEM, TIME, USER
from dssm_core.config import Config
from dssm_core.data.splits.protocol import Window
from dssm_core.errors import ConfigError, ConflictError
from dssm_core.operation.latest_clicks import Origin, origins, read_latest
from dssm_core.registry.versions import CHAMPION, RegisteredModel, fetch
from dssm_core.retrieval.bundle import Bundle, content_hash, open_bundle
from dssm_core.retrieval.index import make_index
from dssm_core.retrieval.reloading import CURRENT, LINEAGE, current_folder, read_lineage
from dssm_core.retrieval.snapshots import Snapshot, Timeline, trained_window
from dssm_core.runs.code_version import code_version
from dssm_core.runs.files import digest, disk_errors, locked, write_atomically
from dssm_core.runs.layout import ITEM_EMBEDDINGS_FILE, USER_EMBEDDINGS_FILE, ids_file
from dssm_core.runs.run import SAFE_RUN_ID

log = logging.getLogger(__name__)

CODE = "dssm_core.operation.refresh:refresh"  # whose reach decides whether a refresh is repeated
LOCK_TIMEOUT_S = 600.0
CLOCKS_S = 300  # by which machines may differ
USERS_FILE, ITEMS_FILE = USER_EMBEDDINGS_FILE, ITEM_EMBEDDINGS_FILE


def refresh_registered(
    store: RegisteredModel,
    version: str | None,
    config: Config,
    as_of_ms: int,
    root: Path,
    days: Path | None = None,
) -> JSON:
    """Refresh a registered version (None: the champion) and swap it in; its lineage, with the
    folder. See `refresh`.

    ConfigError where there is no such version; ConflictError where another became champion
    meanwhile.
    """
    wanted = version or store.aliases().get(CHAMPION)
    if wanted is None:
        raise ConfigError(
            f"model {store.name!r} in {store.uri} has no champion: promote a version, or give one"
        )
    store.tags(wanted)  # says which versions there are where this is none

    def check() -> None:
        if version is None and (now := store.aliases().get(CHAMPION)) != wanted:
            raise ConflictError(
                f"champion of {store.name!r} became {now or 'none'} while {wanted} was refreshed: the next refresh is its"
            )

    with tempfile.TemporaryDirectory() as folder:
        return refresh(
            fetch(store, wanted, Path(folder)).folder,
            store.name,
            wanted,
            config,
            as_of_ms,
            root,
            days,
            check,
        )


def refresh(
    base: Path,
    model: str,
    version: str,
    config: Config,
    as_of_ms: int,
    root: Path,
    days: Path | None = None,
    check: Callable[[], None] = lambda: None,
) -> JSON:
    """Write the bundle in `base` anew as of a moment, below `root`, and let `current` name it; its
    lineage, with the folder.

    config: whose data.source holds the latest clicks; days: the folder of landed days, which are
    read first. The same bundle, clicks and moment again return what is there. check: called last,
    raises where the bundle must not be swapped in any more. ConfigError on a moment before the
    bundle's own; ConflictError where `current` is newer.
    """
    bundle = open_bundle(base)
    window = _check(bundle, model, config, as_of_ms)
    settings = bundle.config.model_copy(
        update={"data": bundle.config.data.model_copy(update={"source": config.data.source})}
    )
    found = origins(settings, as_of_ms - (window.cutoff_ms - window.start_ms), as_of_ms, days)
    about: JSON = {
        "model": model,
        "version": version,
        "as_of": _iso(as_of_ms),
        "bundle": content_hash(base),
    }
    about |= {"read_from": [origin.holds for origin in found]}
    about["key"] = digest([about, code_version(CODE)])
    with _alone(root / model) as work:
        now = read_lineage(root, model)
        if now and now["key"] == about["key"]:
            return now
        if now and now["version"] == version and now["as_of"] > about["as_of"]:
            raise ConflictError(
                f"{model} version {version} is refreshed as of {now['as_of']} already, after {about['as_of']}: leave it"
            )
        about |= _make(bundle, settings, as_of_ms, found, work)
        write_atomically(work / "bundle" / LINEAGE, json.dumps(about, indent=2).encode())
        check()
        _swap(
            root / model,
            work / "bundle",
            f"{version}/{about['as_of'].replace(':', '')}-{about['key'][:8]}",
        )
    return about | {"folder": str(current_folder(root, model))}


def passed_ms(moment: datetime, now: datetime) -> int:
    """A moment (without a zone: UTC) as ms; ConfigError where it is to come: ages would be wrong,
    and the refreshes until then refused.
    """
    moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    if (moment - now).total_seconds() > CLOCKS_S:
        raise ConfigError(
            f"{moment:%Y-%m-%dT%H:%M:%S%z} is to come, there are no clicks to refresh by: give it with its zone, or in UTC"
        )
    return int(moment.timestamp() * 1000)


def brief(made: JSON) -> JSON:
    """A lineage without the names of files, which may be thousands: how many, and one hash of all."""
    files = [
        {"files": len(held), "sha256": digest(held)} if (held := part.get("files")) else part
        for part in made["read_from"]
    ]
    return made | {"read_from": files}


def _check(bundle: Bundle, model: str, config: Config, as_of_ms: int) -> Window:
    """The bundle's train window. ConfigError where the model, the config and the moment do not go
    together.
    """
    window = trained_window(bundle.config)
    if not SAFE_RUN_ID.fullmatch(model) or config.model_name != bundle.config.model_name:
        raise ConfigError(
            f"config {config.name!r} is not that of model {model!r}, trained as {bundle.config.name!r}: give its own"
        )
    if as_of_ms < window.cutoff_ms:
        made = f"it was trained on everything before {_iso(window.cutoff_ms)}"
        raise ConfigError(
            f"{model} cannot be refreshed as of {_iso(as_of_ms)}: {made}; give a later moment"
        )
    return window


def _make(bundle: Bundle, config: Config, as_of_ms: int, found: list[Origin], work: Path) -> JSON:
    """Write the refreshed bundle to `work`/bundle; how many of what were read and embedded."""
    window, part = trained_window(config), work / "bundle"
    latest, rows = read_latest(
        config, as_of_ms - (window.cutoff_ms - window.start_ms), as_of_ms, found, work / "clicks"
    )
    moment = Timeline.of(bundle.folder, latest).as_of(as_of_ms)
    exported: Floats = np.load(bundle.folder / ITEMS_FILE, mmap_mode="r", allow_pickle=False)
    with disk_errors(part):
        shutil.copytree(bundle.folder, part)  # not linked: the index's files are written over
        items, users = moment.items(exported), moment.all_users(bundle.user_vectors)
        for name, vectors, ids, key in (
            (ITEMS_FILE, items, moment.item_ids, ITEM),
            (USERS_FILE, users, moment.user_ids, USER),
        ):
            np.save(part / name, vectors)
            ids.save(part / ids_file(key), key)
        if hot := moment.hot(bundle.hot):
            hot.save(part)
        index = make_index(bundle.config, items, users, part)
    open_bundle(part).retrieve(pd.DataFrame({USER: [None]}), 1)  # what cannot answer is not served
    return {
        "clicks": rows | _since(latest.clicks[TIME], window.cutoff_ms),
        "embedded": _counts(moment, bundle, exported),
        "index": index,
    }


def _since(times: pd.Series[Any], cutoff_ms: int) -> JSON:
    """Clicks since the bundle was made, and the newest of all."""
    since = int((times >= cutoff_ms).sum())
    if not since:
        log.warning("no click since the model's training: does the log still arrive?")
    return {"since_training": since, "newest": _iso(int(times.max()))}


def _counts(moment: Snapshot, bundle: Bundle, exported: Floats) -> JSON:
    new_items, new_users = (
        moment.n_items - 1 - len(exported),
        moment.n_users - len(bundle.user_vectors),
    )
    embedded = moment.n_items - 1 if bundle.config.features.activity.enabled else new_items
    return {
        "items": embedded,
        "new_items": new_items,
        "users": len(moment.acted),
        "new_users": new_users,
    }


@contextmanager
def _alone(folder: Path) -> Iterator[Path]:
    """One refresh of a model at a time: an empty folder to work in, gone afterwards."""
    work = folder / ".part"
    with locked(folder / ".lock", LOCK_TIMEOUT_S, "refresh"):
        shutil.rmtree(work, ignore_errors=True)  # of one that was killed
        (work / "clicks").mkdir(parents=True)
        try:
            yield work
        finally:
            shutil.rmtree(work, ignore_errors=True)


def _swap(folder: Path, part: Path, name: str) -> None:
    """Give a written bundle its name and let `current` name it: one rename each. What was current
    before stays for its readers.
    """
    before, link = (folder / CURRENT).resolve(), folder / f".{CURRENT}"
    with disk_errors(folder):
        shutil.rmtree(
            folder / name, ignore_errors=True
        )  # of a refresh that was killed before its link moved
        (folder / name).parent.mkdir(exist_ok=True)
        os.replace(part, folder / name)
        os.sync()  # the link must not outlive a power cut that its files do not
        link.unlink(missing_ok=True)
        link.symlink_to(name)
        os.replace(link, folder / CURRENT)
    for old in folder.glob(f"*/*/{LINEAGE}"):
        if old.parent.resolve() not in (before, (folder / name).resolve()):
            shutil.rmtree(old.parent, ignore_errors=True)


def _iso(time_ms: int) -> str:
    return datetime.fromtimestamp(time_ms / 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
