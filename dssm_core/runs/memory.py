"""How much memory a step plans with."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from dssm_core.config.resources import Resources
from dssm_core.errors import ConfigError

GIB = 2**30
LEAST_GIB = 1.0
SHARE_OF_DUCKDB = 0.5
SHARE_OF_A_PART = 0.125
# The file of the limit and the controller, which is also a folder, of cgroup 2 and cgroup 1.
LIMITS = (("memory.max", ""), ("memory.limit_in_bytes", "memory"))
CGROUPS = Path("/sys/fs/cgroup")
OWN_CGROUPS = Path("/proc/self/cgroup")


@dataclass(frozen=True)
class Memory:
    """The memory that a step plans with, in bytes."""

    total: int

    @property
    def duckdb(self) -> int:
        """Bytes that DuckDB may use before it writes to disk."""
        return int(self.total * SHARE_OF_DUCKDB)

    def rows(self, bytes_a_row: int) -> int:
        """Number of rows of a part, each of which takes so many bytes while it is worked on."""
        return max(1, int(self.total * SHARE_OF_A_PART) // bytes_a_row)


def planned(resources: Resources) -> Memory:
    """The memory of `resources.memory_gib`, by default half of the machine's or its cgroup's."""
    gib = resources.memory_gib or max(LEAST_GIB, available() / 2 / GIB)
    return Memory(int(gib * GIB))


def require(resources: Resources, least: int, what: str) -> None:
    """ConfigError if `resources.memory_gib` is less than `least` bytes, which `what` needs."""
    gib = resources.memory_gib
    if gib is not None and gib * GIB < least:
        raise ConfigError(
            f"resources.memory_gib is {gib:g}, but {what} need at least"
            f" {math.ceil(least / GIB * 10) / 10:g} GiB: raise it, or remove it"
        )


def available(cgroups: Path = CGROUPS, own: Path = OWN_CGROUPS) -> int:
    """Bytes of memory of the machine, or of the smallest cgroup around this process."""
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return min([machine, *_limits(cgroups, own)])


def _limits(cgroups: Path, own: Path) -> Iterator[int]:
    """The limits of the process's cgroups and of all above them, as far as they can be read.

    A container often sees only its own cgroup, as the root.
    """
    lines = own.read_text().splitlines() if own.is_file() else []
    paths = {controllers: path for _, controllers, path in (line.split(":", 2) for line in lines)}
    for name, controller in LIMITS:
        path = Path(paths.get(controller, "/"))
        for folder in (path, *path.parents):
            file = cgroups / controller / folder.relative_to("/") / name
            text = file.read_text().strip() if file.is_file() else ""
            if text.isdecimal():
                yield int(text)
