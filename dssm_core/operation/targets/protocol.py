"""What is published, and where."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

import pyarrow as pa

from dssm_core.aliases import JSON
from dssm_core.errors import ServiceError

LOCK_TIMEOUT_S = 1800.0


class Content(Protocol):
    """One table of a version. Its first column is the id, a text or a whole number."""

    @property
    def name(self) -> str:
        """The name of its file, and a part of its keys."""
        ...

    @property
    def schema(self) -> pa.Schema:
        """The columns of `parts`."""
        ...

    def __len__(self) -> int:
        """Number of rows."""
        ...

    def parts(self) -> Iterator[pa.Table]:
        """All rows, some thousand at a time."""
        ...

    def values(self, part: pa.Table) -> list[bytes]:
        """What a server that answers by key holds for each row of a part."""
        ...


class Target(Protocol):
    """Where a version is published."""

    def publish(
        self, model: str, version: str, contents: list[Content], about: JSON, seen: JSON | None
    ) -> None:
        """Write a version, check it, and only then let readers see it; until then they see the
        previous one.

        seen: what readers see as this begins. Raises ServiceError if another publisher has let them
        see something else meanwhile.
        """
        ...

    def current(self, model: str) -> JSON | None:
        """What readers see: `about` of the last published version; None if there is none."""
        ...


def overtaken(now: JSON | None) -> ServiceError:
    """The error of a publisher that was slower than another.

    now: what readers see.
    """
    return ServiceError(
        "another publisher was faster, readers see version "
        f"{now['version'] if now else 'none'}: publish again"
    )
