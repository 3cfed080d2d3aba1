"""The history of a model's champions, which MLflow does not keep: one line for each decision.

`<runs>/history/<model>.jsonl` only grows. Each line names the MLflow server that it is about.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict

from dssm_core.errors import ConfigError
from dssm_core.runs.files import disk_errors, locked
from dssm_core.runs.run import SAFE_RUN_ID

Action = Literal["promote", "rollback", "keep", "reject", "moved"]
LOCK_TIMEOUT_S = 300.0
NO_SPACE_LEFT = 28  # errno


class Decision(BaseModel):
    """A line of the history.

    champion, previous: the aliases after the decision; at: when it was made; action `moved`: an
    alias was set in MLflow itself, which was noticed at that time. server, created_ms: the
    MLflow server and when it created the model; None in lines of earlier versions of this code.
    """

    model_config = ConfigDict(frozen=True)
    at: datetime
    action: Action
    version: str | None
    by: str
    reason: str
    champion: str | None
    previous: str | None
    server: str | None = None
    created_ms: int | None = None

    @property
    def line(self) -> str:
        """The decision in one line: `promote v2, decided by admin: reason; champion is v2`."""
        what = f"{self.action} v{self.version}" if self.version else self.action
        reason = f": {self.reason}" if self.reason else ""
        champion = f"champion is v{self.champion}" if self.champion else "there is no champion"
        return f"{what}, decided by {self.by}{reason}; {champion}"


@dataclass(frozen=True)
class Reign:
    """A version was champion from `since` to `until` (None: it still is), by whose decision and
    why.
    """

    version: str
    since: datetime
    until: datetime | None
    by: str
    reason: str


def history(model: str, runs: Path) -> list[Decision]:
    """The decisions on a model as recorded, oldest first. Makes no request and writes nothing."""
    file = history_file(model, runs)
    content = file.read_bytes() if file.is_file() else b""
    lines = content[: _length_of_whole_lines(content)].splitlines()
    return [Decision.model_validate_json(line) for line in lines]


def reigns(decisions: Sequence[Decision]) -> list[Reign]:
    """The champions in order. A decision that does not change the champion starts no reign."""
    champions: list[Reign] = []
    champion: str | None = None
    for decision in decisions:
        if decision.champion == champion:
            continue
        if champion is not None:
            champions[-1] = replace(champions[-1], until=decision.at)
        champion = decision.champion
        if champion is not None:
            champions.append(Reign(champion, decision.at, None, decision.by, decision.reason))
    return champions


def aliases_after(decisions: Sequence[Decision]) -> tuple[str | None, str | None]:
    """The versions of champion and previous_champion after the last decision."""
    return (decisions[-1].champion, decisions[-1].previous) if decisions else (None, None)


def history_file(model: str, runs: Path) -> Path:
    """The file of a model's history, which the first decision creates; ConfigError if the name is
    not safe as a file name.
    """
    if not SAFE_RUN_ID.fullmatch(model):
        raise ConfigError(
            f"model name {model!r} must be letters, digits, '.', '_' and '-' only: "
            "it is `dssm-` and the name of a config, which `dssm runs` lists"
        )
    return Path(runs) / "history" / f"{model}.jsonl"


def history_lock(model: str, runs: Path) -> AbstractContextManager[None]:
    """The lock that allows one decision on a model at a time."""
    lock = history_file(model, runs).with_suffix(".lock")
    return locked(lock, LOCK_TIMEOUT_S, "promotion")


def append(file: Path, decision: Decision) -> None:
    """Append a line completely or, on a full disk, not at all.

    The rest of a line that a power cut left incomplete is removed. The caller holds the lock.
    """
    line = (decision.model_dump_json() + "\n").encode()
    with disk_errors(file):
        descriptor = os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            size = _length_of_whole_lines(file.read_bytes())
            os.ftruncate(descriptor, size)
            if os.write(descriptor, line) != len(line):
                os.ftruncate(descriptor, size)
                raise OSError(NO_SPACE_LEFT, "No space left on device")
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _length_of_whole_lines(content: bytes) -> int:
    return content.rfind(b"\n") + 1
