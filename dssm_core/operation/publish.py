"""The champion's embeddings where others read them: Parquet files, or Redis for a server that
answers by key.

A reader never sees half of a version: all of it is written beside the old one, read back, and only
then does one pointer move.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from dssm_core.aliases import JSON, Floats
from dssm_core.columns import ITEM, USER
from dssm_core.errors import ConfigError, ServiceError
from dssm_core.features.ids import Ids
from dssm_core.registry.versions import CHAMPION, RegisteredModel, fetch
from dssm_core.retrieval.bundle import Bundle, content_hash, open_bundle
from dssm_core.runs.files import disk_errors, locked, write_atomically
from dssm_core.runs.layout import ITEM_EMBEDDINGS_FILE
from dssm_core.runs.run import SAFE_RUN_ID

ROWS_AT_ONCE = 20_000  # some MB of vectors
CHECKED = 256  # vectors of each side that are read back
LOCK_TIMEOUT_S = 1800.0
LEASE_S = 30.0  # a publisher renews its lock with every part; that of a killed one expires


@dataclass(frozen=True)
class Side:
    """Users or items: ids [N] (as text) and their vectors [N, D], which may lie on disk."""

    name: str
    ids: Ids
    vectors: Floats

    def parts(self) -> Iterator[tuple[list[str], Floats]]:
        """Some thousand ids and vectors at a time; the unknown user's is not among them."""
        for first in range(1, len(self.ids), ROWS_AT_ONCE):
            rows = np.arange(first, min(first + ROWS_AT_ONCE, len(self.ids)))
            yield (
                [str(name) for name in self.ids.decode(rows)],
                np.asarray(self.vectors[rows], dtype=np.float32),
            )


class Target(Protocol):
    """Where a version is published."""

    def publish(
        self, model: str, version: str, sides: list[Side], about: JSON, seen: JSON | None
    ) -> None:
        """Write a version, check it, then let readers see it; what they saw before stays whole
        until then.

        seen: what readers see as this begins. ServiceError where another publisher has let them see
        something else meanwhile.
        """

    def current(self, model: str) -> JSON | None:
        """What readers see: `about` of the version that was published last; None where there is
        none.
        """


def publish(bundle: Bundle, model: str, version: str, target: str) -> JSON:
    """Publish a bundle's users and items to a folder or a `redis://` address.

    A version that readers see already is not written again, and never replaced by other content.
    Returns model, version, target, dim, counts, content_hash. ConfigError for another kind of
    target or other content; ServiceError if the target does not answer.
    """
    if not SAFE_RUN_ID.fullmatch(model):
        raise ConfigError(f"model name {model!r} must be letters, digits, '.', '_' and '-' only")
    items = np.load(bundle.folder / ITEM_EMBEDDINGS_FILE, mmap_mode="r", allow_pickle=False)
    sides = [
        Side(USER, bundle.users, bundle.user_vectors),
        Side(ITEM, bundle.items, _with_unknown(items)),
    ]
    about: JSON = {
        "model": model,
        "version": version,
        "dim": int(items.shape[1]),
        "content_hash": content_hash(bundle.folder),
    }
    about |= {f"{side.name}s": len(side.ids) - 1 for side in sides}
    chosen = open_target(target)
    there = chosen.current(model)
    if (
        there and there["version"] == version and there["content_hash"] != about["content_hash"]
    ):  # such as of a new MLflow database
        raise ConfigError(
            f"readers see a version {version} of {model!r} with content "
            f"{there['content_hash'][:12]}, this one has "
            f"{about['content_hash'][:12]}: publish to another place, or remove that one first"
        )
    if there != about:
        chosen.publish(model, version, sides, about, there)
    return about | {"target": target}


def publish_registered(store: RegisteredModel, version: str | None, target: str) -> JSON:
    """Publish a registered version (None: the champion); see `publish`. ConfigError where there is
    none.
    """
    wanted = version or store.aliases().get(CHAMPION)
    if wanted is None:
        raise ConfigError(
            f"model {store.name!r} in {store.uri} has no champion: promote a version, or give one"
        )
    store.tags(wanted)  # says which versions there are where this is none
    with tempfile.TemporaryDirectory() as folder:
        return publish(
            open_bundle(fetch(store, wanted, Path(folder)).folder), store.name, wanted, target
        )


def open_target(target: str) -> Target:
    """The target behind a folder's path or a `redis://` address."""
    if target.startswith(("redis://", "rediss://")):
        return RedisTarget(target)
    if "://" in target:
        raise ConfigError(f"target {target!r}: give a folder, or redis://HOST:PORT/DATABASE")
    return ParquetTarget(Path(target))


@dataclass(frozen=True)
class ParquetTarget:
    """<folder>/<model>/<version>/{user_id,item_id}.parquet: columns id and vector;
    <folder>/<model>/current.json names the version.
    """

    folder: Path

    def publish(
        self, model: str, version: str, sides: list[Side], about: JSON, seen: JSON | None
    ) -> None:
        """See Target."""
        folder = self.folder / model / version
        with (
            locked(self.folder / model / ".lock", LOCK_TIMEOUT_S, "publisher"),
            disk_errors(folder),
        ):
            if (now := self.current(model)) != seen:
                raise _faster(now)
            folder.mkdir(parents=True, exist_ok=True)
            for side in sides:
                _write_parquet(side, folder / f"{side.name}.parquet")
            os.sync()  # the pointer must not outlive a power cut that the files do not
            write_atomically(self._pointer(model), json.dumps(about, indent=2).encode())

    def current(self, model: str) -> JSON | None:
        """See Target."""
        file = self._pointer(model)
        return json.loads(file.read_bytes()) if file.is_file() else None

    def _pointer(self, model: str) -> Path:
        return self.folder / model / "current.json"


@dataclass(frozen=True)
class RedisTarget:
    """Keys `<prefix>:<user_id or item_id>:<id>` hold a vector as little-endian float32;
    `<model>:current` is the version's JSON and prefix.

    A prefix is `<model>:<version>-<start of its content hash>`: no two contents share keys. The
    version before the current one is kept, older ones are deleted. `<model>:publisher` is the lock
    of whoever writes.
    """

    address: str

    def publish(
        self, model: str, version: str, sides: list[Side], about: JSON, seen: JSON | None
    ) -> None:
        """See Target."""
        prefix = f"{model}:{version}-{about['content_hash'][:8]}"
        with (
            self._client() as client,
            client.lock(
                f"{model}:publisher", timeout=LEASE_S, blocking_timeout=LOCK_TIMEOUT_S
            ) as lock,
        ):
            before = client.get(f"{model}:current")
            if (now := _about(before)) != seen:
                raise _faster(now)
            for side in sides:
                for ids, vectors in side.parts():
                    client.mset(
                        {
                            f"{prefix}:{side.name}:{name}": row.tobytes()
                            for name, row in zip(ids, vectors, strict=True)
                        }
                    )
                    lock.reacquire()
            for side in sides:
                _check(client, f"{prefix}:{side.name}", side)
            lock.reacquire()
            client.set(f"{model}:current", json.dumps(about | {"prefix": prefix}))
            for names in _others(
                client, model, {prefix, json.loads(before)["prefix"] if before else prefix}
            ):
                lock.reacquire()
                if names:
                    client.unlink(*names)

    def current(self, model: str) -> JSON | None:
        """See Target."""
        with self._client() as client:
            found = client.get(f"{model}:current")
        return _about(found)

    @contextmanager
    def _client(self) -> Iterator[Any]:
        redis = _redis()
        client = redis.Redis.from_url(self.address, socket_timeout=30)
        try:
            yield client
        except redis.RedisError as error:
            raise ServiceError(
                f"Redis at {self.address.rpartition('@')[2]} did not do its part: {error}; "
                "start it, then publish again"
            ) from error
        finally:
            client.close()


def _redis() -> Any:
    try:
        import redis
    except ImportError as error:
        raise ConfigError(
            "a redis:// target needs the extra: pip install 'dssm[redis]', or publish to a folder"
        ) from error
    return redis


def _check(client: Any, prefix: str, side: Side) -> None:
    """Read an even sample back. ServiceError where a vector is not there as it was written."""
    rows = (
        np.unique(np.linspace(1, max(1, len(side.ids) - 1), CHECKED).astype(np.int64))
        if len(side.ids) > 1
        else np.zeros(0, np.int64)
    )
    found = client.mget([f"{prefix}:{name}" for name in side.ids.decode(rows)]) if len(rows) else []
    wanted = np.asarray(side.vectors[rows], dtype=np.float32)
    if wrong := [row for got, row in zip(found, wanted, strict=True) if got != row.tobytes()]:
        raise ServiceError(
            f"{len(wrong)} of {len(rows)} vectors below {prefix} are not in Redis as they were "
            "written: publish again"
        )


def _about(found: bytes | None) -> JSON | None:
    return (
        {name: value for name, value in json.loads(found).items() if name != "prefix"}
        if found
        else None
    )


def _faster(now: JSON | None) -> ServiceError:
    return ServiceError(
        "another publisher was faster, readers see version "
        f"{now['version'] if now else 'none'}: publish again"
    )


def _others(client: Any, model: str, kept: set[str]) -> Iterator[list[bytes]]:
    """The keys of all other versions, among some thousand keys at a time: an empty list where none
    of those is one.
    """
    cursor = None
    while cursor != 0:
        cursor, names = client.scan(cursor or 0, match=f"{_literal(model)}:*:*", count=ROWS_AT_ONCE)
        yield [name for name in names if ":".join(name.decode().split(":")[:2]) not in kept]


def _literal(text: str) -> str:
    return "".join(f"\\{sign}" if sign in "*?[]\\" else sign for sign in text)


def _write_parquet(side: Side, file: Path) -> None:
    """Write beside it, then rename."""
    part, dim = file.with_suffix(".part"), int(side.vectors.shape[1])
    schema = pa.schema([("id", pa.string()), ("vector", pa.list_(pa.float32(), dim))])
    with pq.ParquetWriter(part, schema, compression="zstd") as writer:
        for ids, vectors in side.parts():
            column = pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), dim)
            writer.write_table(pa.table([pa.array(ids, pa.string()), column], schema=schema))
    part.replace(file)


def _with_unknown(items: Floats) -> Floats:
    """Item vectors by code: row 0 belongs to no item, as in the users' matrix."""
    return np.concatenate([np.zeros((1, items.shape[1]), items.dtype), items])
