"""Who was champion from when to when, by whom and why: the one way to move the alias, and the history that MLflow does not keep.

MLflow knows where an alias points, not where it pointed. <runs>/history/<model>.jsonl holds a line a decision, appended under a lock
that all processes on the runs' volume share and never rewritten. A version's tags are written before the alias moves and the line
after it: what is killed in between is completed from the tags by whoever looks next.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Literal

from filelock import FileLock, Timeout
from pydantic import BaseModel, ConfigDict

from dssm_core import gate
from dssm_core.artifacts import SAFE_RUN_ID, Run, disk_errors
from dssm_core.errors import ConfigError, ConflictError, ServiceError
from dssm_core.registry import CHALLENGER, CHAMPION, DAY, PREVIOUS, Registered, newer_day, registered

Action = Literal["promote", "rollback", "keep", "reject", "moved"]
MOVES = ("promote", "rollback")
DECISION = "dssm.decision"
GATE = "gate"  # who decides where no person is asked
LOCK_TIMEOUT_S = 300.0


class Decision(BaseModel):
    """A line of the history. champion, previous: the aliases once it was done; at: when it was decided.

    `moved` is a champion that somebody set in MLflow itself; it is noticed afterwards.
    """

    model_config = ConfigDict(frozen=True)
    at: datetime
    action: Action
    version: str | None
    by: str
    reason: str
    champion: str | None
    previous: str | None


@dataclass(frozen=True)
class Reign:
    """A version was champion from `since` until `until` (None: it still is), by whose decision and why."""

    version: str
    since: datetime
    until: datetime | None
    by: str
    reason: str


def decide(
    action: Action,
    model: str,
    runs: Path,
    at: datetime,
    by: str,
    reason: str = "",
    version: str | int | None = None,
    seen: str | None = None,
    check: Callable[[Registered, str], None] = lambda model, version: None,
) -> Decision:
    """Apply a decision on a version and write it down; `promote` and `rollback` move `champion` and `previous_champion`.

    version: None is today's challenger, for a rollback `previous_champion`. seen: the champion that the decision was made against (None:
    today's; "": there was none). check: called with a version that is to become champion, and raises where it must not. The same
    decision twice is one. ConfigError: no such version, or one of older days than the champion's; ConflictError: the champion was moved
    in between.
    """
    store = registered(model, runs)
    before = store.aliases()
    wanted = _wanted(store, before, action, version)
    if action in MOVES and before.get(CHAMPION) != wanted:
        check(store, wanted)
    with locked(model, runs):
        known = _caught_up(store, runs, at)
        now = store.aliases()
        champion, expected = now.get(CHAMPION), before.get(CHAMPION) if seen is None else seen or None
        if action in MOVES and champion == wanted:  # a task that was killed after it, or twice the same wish
            return known[-1]
        if action in MOVES and champion != expected:
            raise ConflictError(_overtaken(store, wanted, expected, known))
        after = (wanted, champion) if action in MOVES else (champion, now.get(PREVIOUS))
        made = Decision(at=at, action=action, version=wanted, by=by, reason=reason, champion=after[0], previous=after[1])
        if made not in known:
            _apply(store, made)
            _append(history_file(model, runs), made)
    return made


def alone(run: Run) -> str | None:
    """Why a run's registered version is to be promoted without a person; None where one is to be asked.

    The config must say so (gate.stands_out), the version be today's challenger, and the champion still be the one it was measured
    against: what a past day or a slower run has made never goes live by itself.
    """
    metrics, version = run.need("recall_gate").info["metrics"], str(run.need("register_model").info["version"])
    reason, now = gate.stands_out(metrics, run.config.gate), registered(run.config.model_name, run.runs).aliases()
    measured = metrics.get("champion", {}).get("version")
    return reason if now.get(CHALLENGER) == version and now.get(CHAMPION) == measured else None


def history(model: str, runs: Path) -> list[Decision]:
    """Every decision on a model, oldest first; empty where none was made."""
    file = history_file(model, runs)
    lines = file.read_text(encoding="utf-8").splitlines() if file.is_file() else []
    return [Decision.model_validate_json(line) for line in lines]


def notice(model: str, runs: Path, at: datetime) -> Decision | None:
    """Write down a champion that was set in MLflow itself; the new line, None where the history is right as it is."""
    with locked(model, runs):
        before = len(history(model, runs))
        known = _caught_up(registered(model, runs), runs, at)
    return known[-1] if len(known) > before else None


def reigns(decisions: Sequence[Decision]) -> list[Reign]:
    """The champions one after the other. A decision that leaves the champion as it is starts no reign."""
    found: list[Reign] = []
    champion: str | None = None
    for made in decisions:
        if made.champion == champion:
            continue
        if champion is not None:
            found[-1] = Reign(found[-1].version, found[-1].since, made.at, found[-1].by, found[-1].reason)
        champion = made.champion
        if champion is not None:
            found.append(Reign(champion, made.at, None, made.by, made.reason))
    return found


def history_file(model: str, runs: Path) -> Path:
    """Where a model's history lies; it is made by its first decision. ConfigError on a name that could lead elsewhere."""
    if not SAFE_RUN_ID.fullmatch(model):
        raise ConfigError(f"model name {model!r} must be letters, digits, '.', '_' and '-' only: `dssm runs` tells the configs' names")
    return Path(runs) / "history" / f"{model}.jsonl"


@contextmanager
def locked(model: str, runs: Path) -> Iterator[None]:
    """One decision on a model at a time, over all processes and machines that share the runs' volume."""
    file = history_file(model, runs).with_suffix(".lock")
    with disk_errors(file):
        file.parent.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(file, timeout=LOCK_TIMEOUT_S):
            yield
    except Timeout as error:
        raise ServiceError(f"{file} has been held for {LOCK_TIMEOUT_S:.0f} s: another promotion hangs; end it and try again") from error


def _wanted(store: Registered, before: dict[str, str], action: Action, version: str | int | None) -> str:
    """The version that is decided on, known to MLflow."""
    alias = PREVIOUS if action == "rollback" else CHALLENGER
    wanted = before.get(alias) if version is None else str(version)
    if wanted is None:
        raise ConfigError(f"model {store.name!r} in {store.uri} has no {alias}: " + _HINTS[alias])
    ours, champion = store.tags(wanted).get(DAY, ""), before.get(CHAMPION)
    if action == "promote" and champion and newer_day(theirs := store.tags(champion).get(DAY, ""), ours):
        raise ConfigError(  # such as of a backfill
            f"version {wanted} of {store.name!r} was tested on {ours}, champion version {champion} on {theirs}: promote a version of that "
            "day or later, or go back on purpose with `dssm rollback --version`"
        )
    return wanted


_HINTS = {
    CHALLENGER: "run the pipeline, or give a version",
    PREVIOUS: "nothing was champion before today's; give the version to go back to",
}


def _caught_up(store: Registered, runs: Path, at: datetime) -> list[Decision]:
    """The history, with a line for a champion that it does not know of yet. The caller holds the lock."""
    known, now = history(store.name, runs), store.aliases()
    champion = now.get(CHAMPION)
    if champion == (known[-1].champion if known else None):
        return known
    found = _unwritten(store, champion, known) or Decision(
        at=at, action="moved", version=champion, by="MLflow", reason="", champion=champion, previous=now.get(PREVIOUS)
    )
    _append(history_file(store.name, runs), found)
    return [*known, found]


def _unwritten(store: Registered, champion: str | None, known: Sequence[Decision]) -> Decision | None:
    """The decision whose process was killed between moving the alias and writing its line."""
    text = store.tags(champion).get(DECISION) if champion else None
    found = Decision.model_validate_json(text) if text else None
    return found if found and found.champion == champion and found not in known else None


def _apply(store: Registered, made: Decision) -> None:
    """Tags first; `champion` moves last and in one step, so that readers always find one."""
    version = str(made.version)
    told = {"action": made.action, "by": made.by, "reason": made.reason, "at": made.at.isoformat()}
    store.tag(version, {DECISION: made.model_dump_json()} | {f"dssm.decision.{name}": text for name, text in told.items()})
    if made.action in MOVES:
        if made.previous is not None:
            store.point(PREVIOUS, made.previous)
        store.point(CHAMPION, version)


def _overtaken(store: Registered, wanted: str, expected: str | None, known: Sequence[Decision]) -> str:
    last = known[-1]
    return (
        f"version {wanted} of {store.name!r} was not made champion: that was decided against champion {expected or 'none'}, but {last.by} "
        f"made it {last.champion or 'none'} at {last.at:%Y-%m-%d %H:%M:%S %Z}; compare with that one and decide again"
    )


def _append(file: Path, made: Decision) -> None:
    """Add a line: all of it or, on a full disk, nothing."""
    line = (made.model_dump_json() + "\n").encode()
    with disk_errors(file):
        descriptor = os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            size = os.fstat(descriptor).st_size
            if os.write(descriptor, line) != len(line):
                os.ftruncate(descriptor, size)
                raise OSError(28, "No space left on device")
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
