"""Background processes that outlive the command that started them, and can be found and ended
later.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import psutil

STOP_S = 5  # between asking a process to end and ending it


def start(folder: Path, name: str, command: Sequence[str], env: Mapping[str, str]) -> None:
    """Start a process as the leader of its own session, its output in `<name>.log`, its id in
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
    """The process that `start` left under this name, None if it has ended (or its id now means
    another process).
    """
    file = folder / f"{name}.json"
    if not file.is_file():
        return None
    known = json.loads(file.read_bytes())
    try:
        process = psutil.Process(known["pid"])
        return process if process.create_time() == known["born"] and _runs(process) else None
    except psutil.NoSuchProcess:
        return None


def stop(folder: Path) -> list[psutil.Process]:
    """End every process started from a folder with all its descendants; returns what would not end."""
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
    """The end of a process's log."""
    file = folder / f"{name}.log"
    return (
        "\n".join(file.read_text(errors="replace").splitlines()[-lines:]) if file.is_file() else ""
    )


def free_port(wanted: int) -> int:
    """The wanted port of 127.0.0.1 if nothing listens there, else any free one."""
    for port in (wanted, 0):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return int(probe.getsockname()[1])
    raise OSError("no free port on 127.0.0.1")


def _family(known: list[dict[str, float]]) -> list[psutil.Process]:
    """Leaders, their descendants, and orphans that kept a leader's session."""
    born = {int(one["pid"]): one["born"] for one in known}
    found = {}
    for process in psutil.process_iter():
        try:
            session = os.getsid(process.pid)
            if session in born and process.create_time() >= born[session]:
                found |= {one.pid: one for one in (process, *process.children(recursive=True))}
        except (psutil.Error, ProcessLookupError):
            continue
    return [process for process in found.values() if process.pid != os.getpid()]


def _runs(process: psutil.Process) -> bool:
    """Whether a process still does something; one that has ended and waits for its parent to ask
    does not.
    """
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _wait(processes: list[psutil.Process]) -> list[psutil.Process]:
    """Wait for processes to end; returns those that have not."""
    deadline = time.monotonic() + STOP_S
    while (
        alive := [process for process in processes if _runs(process)]
    ) and time.monotonic() < deadline:
        time.sleep(0.05)
    return alive
