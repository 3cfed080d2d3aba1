"""Files on a shared disk: atomic writes, locks, links, hashes, and errors that name the path."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from dssm_core.errors import ServiceError

SCRATCH = ".scratch-"  # prefix of temporary folders inside a run's folder


def write_atomically(file: Path, content: bytes) -> None:
    """Write a file so that a reader sees either the old or the new content, never a part of it."""
    with replaced(file) as part:
        part.write_bytes(content)


@contextmanager
def replaced(file: Path) -> Iterator[Path]:
    """The path of a file to write, which then replaces `file`. After an error `file` stays as it
    was.
    """
    with disk_errors(file):
        file.parent.mkdir(parents=True, exist_ok=True)
        part = file.with_name(f".{file.name}.{os.getpid()}.part")
        try:
            yield part
            os.replace(part, file)
        finally:
            part.unlink(missing_ok=True)


@contextmanager
def locked(file: Path, timeout_s: float, holder: str) -> Iterator[None]:
    """Hold a lock file that all processes and machines sharing the disk respect.

    holder: what kind of process takes this lock, for the message. ServiceError if another process
    holds the lock for longer than `timeout_s`.
    """
    lock = FileLock(file, timeout=timeout_s)
    with disk_errors(file):
        file.parent.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire()
        except Timeout as error:
            raise ServiceError(
                f"{file} has been held for {timeout_s:.0f} s: another {holder} hangs; "
                "end it and retry"
            ) from error
    try:
        yield
    finally:
        lock.release()


def scratch(folder: Path) -> tempfile.TemporaryDirectory[str]:
    """A temporary folder on the same disk as `folder`, removed on exit.

    If the process is killed, the run's next step removes what is left.
    """
    return tempfile.TemporaryDirectory(prefix=SCRATCH, dir=folder)


def link(source: Path | str, target: Path | str) -> None:
    """Make a hard link, or a copy where the file system does not support links."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


@contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Turn an OSError, such as a full or read-only disk, into a ServiceError that names `path`."""
    try:
        yield
    except OSError as error:
        raise ServiceError(
            f"cannot write {path}: {error.strerror or error}; free space or permissions, then retry"
        ) from error


def sha256(file: Path) -> str:
    """The SHA-256 of a file's content, in hex."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def hashes(folder: Path) -> dict[str, str]:
    """The SHA-256 of each file below a folder, by relative path."""
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    return {str(file.relative_to(folder)): sha256(file) for file in files}


def digest(value: Any) -> str:
    """The SHA-256 of a JSON value with sorted keys, in hex."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()
