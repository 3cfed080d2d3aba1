"""Redis, for a server that answers by key."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from dssm_core.aliases import JSON
from dssm_core.columns import ITEM, USER
from dssm_core.errors import ConfigError, ServiceError, masked
from dssm_core.operation.targets.protocol import LOCK_TIMEOUT_S, Content, overtaken
from dssm_core.runs.files import digest

KEYS_AT_ONCE = 20_000  # of a scan
NAMES = (USER, ITEM, "lists")  # of all contents that are published with any version
CHECKED = 256  # values of each content that are read back
LEASE_S = 30.0  # a publisher renews its lock with every part; that of a killed one expires


@dataclass(frozen=True)
class RedisTarget:
    """Keys `<prefix>:<content>:<id>` hold the values; `<model>:current` is the version's JSON and
    prefix.

    No two contents share a prefix. The version before the current one is kept, older ones are
    deleted. `<model>:publisher` is the lock of whoever writes.
    """

    address: str

    def publish(
        self, model: str, version: str, contents: list[Content], about: JSON, seen: JSON | None
    ) -> None:
        """See Target."""
        prefix = _prefix(about)
        with (
            self._client() as client,
            client.lock(
                f"{model}:publisher", timeout=LEASE_S, blocking_timeout=LOCK_TIMEOUT_S
            ) as lock,
        ):
            before = client.get(f"{model}:current")
            if (now := _about(before)) != seen:
                raise overtaken(now)
            samples = {}
            for content in contents:
                below = f"{prefix}:{content.name}"
                samples[below] = _write(client, below, content, lock.reacquire)
            for below, sample in samples.items():
                _check(client, below, sample)
            lock.reacquire()
            client.set(f"{model}:current", json.dumps(about | {"prefix": prefix}))
            kept = {prefix, json.loads(before)["prefix"] if before else prefix}
            for names in _outdated(client, model, kept):
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
        client = _connect(redis, self.address)
        try:
            yield client
        except redis.RedisError as error:
            raise ServiceError(
                f"Redis at {masked(self.address)} did not do its part: {error}; "
                "start it, then publish again"
            ) from error
        finally:
            client.close()


def _prefix(about: JSON) -> str:
    """<model>:<version>-<start of the content's hash>, and of the hash of what its lists are."""
    prefix = f"{about['model']}:{about['version']}-{about['content_hash'][:8]}"
    return f"{prefix}-{digest(about['lists'])[:8]}" if "lists" in about else prefix


def _redis() -> Any:
    try:
        import redis
    except ImportError as error:
        raise ConfigError(
            "a redis:// target needs the extra: pip install 'dssm[redis]', or publish to a folder"
        ) from error
    return redis


def _connect(redis: Any, address: str) -> Any:
    """A client, which connects when it is used. ConfigError, without the address, if it is none."""
    try:
        if any(sign.isspace() for sign in address):
            raise ValueError
        return redis.Redis.from_url(address, socket_timeout=30)
    except ValueError:  # its text, and so a traceback, may hold a part of the password
        raise ConfigError(
            "the target is no address of Redis: give redis://USER:PASSWORD@HOST:PORT/DATABASE with "
            "spaces and the signs / @ : ? # of the password encoded, such as %2F for /"
        ) from None


def _write(
    client: Any, prefix: str, content: Content, renew_lock: Callable[[], Any]
) -> dict[str, bytes]:
    """Write all rows; returns an even sample of the keys with their values."""
    sample: dict[str, bytes] = {}
    step = max(1, len(content) // CHECKED)
    for part in content.parts():
        names = part.column(0).cast(pa.string()).to_pylist()
        keys = [f"{prefix}:{name}" for name in names]
        values = dict(zip(keys, content.values(part), strict=True))
        client.mset(values)
        sample |= {key: values[key] for key in keys[::step]}
        renew_lock()
    return sample


def _check(client: Any, prefix: str, sample: dict[str, bytes]) -> None:
    """Read keys back. Raises ServiceError if one does not have its value."""
    stored = client.mget(list(sample)) if sample else []
    wrong = sum(value != wanted for value, wanted in zip(stored, sample.values(), strict=True))
    if wrong:
        raise ServiceError(
            f"{wrong} of {len(sample)} keys below {prefix} are not in Redis as they were written:"
            " publish again"
        )


def _about(found: bytes | None) -> JSON | None:
    return (
        {name: value for name, value in json.loads(found).items() if name != "prefix"}
        if found
        else None
    )


def _outdated(client: Any, model: str, kept: set[str]) -> Iterator[list[bytes]]:
    """The keys of all other versions, among some thousand keys at a time: an empty list where none
    of those is one.

    Only keys that a publisher names so are ours, whatever else lies below `<model>:`. Keys are
    compared as bytes, because those of others need not be text.
    """
    ours = re.compile(f"{re.escape(model)}:[^:]+-[0-9a-f]{{8}}:(?:{'|'.join(NAMES)}):".encode())
    current = tuple(f"{prefix}:".encode() for prefix in kept)
    cursor = None
    while cursor != 0:
        cursor, keys = client.scan(cursor or 0, match=f"{_literal(model)}:*:*", count=KEYS_AT_ONCE)
        yield [key for key in keys if ours.match(key) and not key.startswith(current)]


def _literal(text: str) -> str:
    return "".join(f"\\{sign}" if sign in "*?[]\\" else sign for sign in text)
