"""Background processes: they outlive the command that starts them, and later commands find and
stop them.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import psutil
from tenacity import RetryError

from local.waiting import wait_for

STOP_S = 5  # time that a process has to end before it is killed


def start(folder: Path, name: str, command: Sequence[str], env: Mapping[str, str]) -> None:
    """Start a process as the leader of its own session. Its output goes to `<name>.log`, its id to
    `<name>.json`.
    """
    with (folder / f"{name}.log").open("ab") as log:
        process = subprocess.Popen(
            command,
            env=dict(env),
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    born = psutil.Process(process.pid).create_time()
    (folder / f"{name}.json").write_text(json.dumps({"pid": process.pid, "born": born}))


def leader(folder: Path, name: str) -> psutil.Process | None:
    """The process that `start` started under this name.

    None if it has ended, even if another process has its id now.
    """
    file = folder / f"{name}.json"
    if not file.is_file():
        return None
    record = json.loads(file.read_bytes())
    try:
        process = psutil.Process(record["pid"])
        return process if process.create_time() == record["born"] and _runs(process) else None
    except psutil.NoSuchProcess:
        return None


def stop(folder: Path) -> list[psutil.Process]:
    """Stop every process that was started from a folder, with all its descendants.

    Returns the processes that did not end.
    """
    files = list(folder.glob("*.json"))
    processes = _family([json.loads(file.read_bytes()) for file in files])
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.terminate()
    alive = _wait(processes)
    for process in alive:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    alive = _wait(alive)
    for file in files if not alive else []:
        file.unlink()
    return alive


def tail(folder: Path, name: str, lines: int = 25) -> str:
    """The last lines of a process's log."""
    file = folder / f"{name}.log"
    if not file.is_file():
        return ""
    return "\n".join(file.read_text(errors="replace").splitlines()[-lines:])


def free_port(preferred: int) -> int:
    """A free port of 127.0.0.1: the preferred one if nothing listens there."""
    for port in (preferred, 0):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return int(probe.getsockname()[1])
    raise OSError("no free port on 127.0.0.1")


def _family(records: list[dict[str, float]]) -> list[psutil.Process]:
    """The leaders, their descendants, and orphans that are still in the session of a leader."""
    born = {int(record["pid"]): record["born"] for record in records}
    family: dict[int, psutil.Process] = {}
    for process in psutil.process_iter():
        try:
            session = os.getsid(process.pid)
            if session in born and process.create_time() >= born[session]:
                for member in (process, *process.children(recursive=True)):
                    family[member.pid] = member
        except (psutil.Error, ProcessLookupError):
            continue
    return [process for process in family.values() if process.pid != os.getpid()]


def _runs(process: psutil.Process) -> bool:
    """Whether a process runs. A zombie, which has ended but was not collected by its parent, does
    not.
    """
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _wait(processes: list[psutil.Process]) -> list[psutil.Process]:
    """Wait for processes to end, at most STOP_S seconds. Returns those that still run."""
    with suppress(RetryError):
        wait_for(lambda: not any(map(_runs, processes)), every_s=0.05, at_most_s=STOP_S)
    return [process for process in processes if _runs(process)]
