"""A version where others read it: Parquet files, or Redis for a server that answers by key.

A reader never sees half of a version: all of it is written beside the old one, read back, and only
then does one pointer move.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from dssm_core.aliases import JSON, Floats
from dssm_core.columns import ITEM, USER
from dssm_core.errors import ConfigError, masked
from dssm_core.features.ids import Ids
from dssm_core.operation.opened import opened
from dssm_core.operation.recommend import UserLists, id_type
from dssm_core.operation.targets.parquet import ParquetTarget
from dssm_core.operation.targets.protocol import Content, Target
from dssm_core.operation.targets.redis import RedisTarget
from dssm_core.registry.versions import RegisteredModel
from dssm_core.retrieval.bundle import Bundle, content_hash
from dssm_core.runs.layout import ITEM_EMBEDDINGS_FILE
from dssm_core.runs.run import SAFE_RUN_ID

ROWS_AT_ONCE = 20_000  # some MB of vectors


@dataclass(frozen=True)
class Vectors:
    """The vectors of all users or items. A key holds a vector as little-endian float32.

    name: user_id or item_id. vectors: [N + 1, D] by code, which may lie on disk; row 0, of unknown
    users or items, is not published.
    """

    name: str
    ids: Ids
    vectors: Floats

    @property
    def schema(self) -> pa.Schema:
        """See Content."""
        dim = int(self.vectors.shape[1])
        return pa.schema([("id", id_type(self.ids)), ("vector", pa.list_(pa.float32(), dim))])

    def __len__(self) -> int:
        """Number of rows."""
        return len(self.ids) - 1

    def parts(self) -> Iterator[pa.Table]:
        """See Content."""
        for first in range(1, len(self.ids), ROWS_AT_ONCE):
            codes = np.arange(first, min(first + ROWS_AT_ONCE, len(self.ids)))
            ids = pa.array(self.ids.decode(codes), id_type(self.ids))
            rows = np.asarray(self.vectors[codes], dtype=np.float32)
            column = pa.FixedSizeListArray.from_arrays(pa.array(rows.ravel()), rows.shape[1])
            yield pa.table([ids, column], schema=self.schema)

    def values(self, part: pa.Table) -> list[bytes]:
        """See Content."""
        flat = part["vector"].combine_chunks().flatten().to_numpy()
        return [row.tobytes() for row in flat.reshape(len(part), -1)]


def publish(
    bundle: Bundle, model: str, version: str, target: str, lists: UserLists | None = None
) -> JSON:
    """Publish a bundle's users and items, and the lists of its users, to a folder or a `redis://`
    address.

    lists: None publishes no lists. A version that readers see already is not written again, and
    never replaced by other content. Returns model, version, target (its secrets are masked), dim,
    counts, content_hash and what the lists are. Raises ConfigError for another kind of target or
    other content, and ServiceError if the target does not answer.
    """
    if not SAFE_RUN_ID.fullmatch(model):
        raise ConfigError(f"model name {model!r} must be letters, digits, '.', '_' and '-' only")
    items = np.load(bundle.folder / ITEM_EMBEDDINGS_FILE, mmap_mode="r", allow_pickle=False)
    contents: list[Content] = [
        Vectors(USER, bundle.users, bundle.user_vectors),
        Vectors(ITEM, bundle.items, _with_unknown(items)),
    ]
    about: JSON = {
        "model": model,
        "version": version,
        "dim": int(items.shape[1]),
        "content_hash": content_hash(bundle.folder),
        f"{USER}s": len(bundle.users) - 1,
        f"{ITEM}s": len(bundle.items) - 1,
    }
    if lists:
        contents.append(lists)
        about[lists.name] = lists.about
    chosen = open_target(target)
    there = chosen.current(model)
    _check_content(about, there)
    if there != about:
        chosen.publish(model, version, contents, about, there)
    return about | {"target": masked(target)}


def _check_content(about: JSON, there: JSON | None) -> None:
    """Raise ConfigError if readers see other content under the same version, such as that of
    another MLflow database.
    """
    if there is None or there["version"] != about["version"]:
        return
    old, new = there["content_hash"], about["content_hash"]
    if old != new:
        raise ConfigError(
            f"readers see a version {about['version']} of {about['model']!r} with content "
            f"{old[:12]}, this one has {new[:12]}: publish to another place, or remove that one"
            " first"
        )


def publish_registered(
    store: RegisteredModel,
    version: str | None,
    target: str,
    k: int | None = None,
    as_of_ms: int | None = None,
) -> JSON:
    """Publish a registered version, given by number or alias (None: the champion); see `publish`.

    k: the length of the lists; None publishes no lists. as_of_ms: the time at which the items in
    them must be available. Raises ConfigError if there is no such version.
    """
    with opened(store, version) as (bundle, about):
        lists = UserLists(bundle, bundle.rules(as_of_ms), k) if k is not None else None
        return publish(bundle, store.name, about["version"], target, lists)


def open_target(target: str) -> Target:
    """The target behind a folder's path or a `redis://` address."""
    if target.startswith(("redis://", "rediss://")):
        return RedisTarget(target)
    if "://" in target:
        raise ConfigError(f"target {target!r}: give a folder, or redis://HOST:PORT/DATABASE")
    return ParquetTarget(Path(target))


def _with_unknown(items: Floats) -> Floats:
    """Item vectors by code: row 0 belongs to no item, as in the users' matrix."""
    return np.concatenate([np.zeros((1, items.shape[1]), items.dtype), items])
