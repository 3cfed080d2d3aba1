"""Who was champion from when to when, by whom and why: the one way to move the alias, and the
history that MLflow does not keep.

MLflow knows where an alias points, not where it pointed. <runs>/history/<model>.jsonl holds a line
a decision, appended under a lock that all processes on the runs' volume share and never rewritten.
A version's tags are written before `champion` moves, `previous_champion`
and the line after it: what is killed in between is completed from the tags by whoever looks next.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict

from dssm_core.errors import ConfigError, ConflictError
from dssm_core.gate.rules import promotion_reason
from dssm_core.registry.versions import (
    CHALLENGER,
    CHAMPION,
    PREVIOUS,
    RegisteredModel,
    newer_day,
    open_model,
)
from dssm_core.runs.files import disk_errors, locked
from dssm_core.runs.gate_report import read_gate_report
from dssm_core.runs.run import SAFE_RUN_ID, Run
from dssm_core.tracking.runs import TEST_DAY_TAG

Action = Literal["promote", "rollback", "keep", "reject", "moved"]
MOVES = ("promote", "rollback")
DECISION = "dssm.decision"
GATE = "gate"  # who decides where no person is asked
LOCK_TIMEOUT_S = 300.0
REASON_LENGTH = 1000  # as in the Dags' forms


class Decision(BaseModel):
    """A line of the history. champion, previous: the aliases once it was done; at: when it was
    decided.

    `moved`: somebody set one of the aliases in MLflow itself; it is noticed afterwards.
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
    """A version was champion from `since` until `until` (None: it still is), by whose decision and
    why.
    """

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
    check: Callable[[RegisteredModel, str], None] = lambda model, version: None,
) -> Decision:
    """Apply a decision on a version and write it down; `promote` and `rollback` move `champion` and
    `previous_champion`.

    version: None is today's challenger, for a rollback `previous_champion`. seen: the champion that
    the decision was made against (None: today's; "": there was none). check: called with a version
    that is to become champion, and raises where it must not. The same decision twice is one.
    ConfigError: no such version, or one of older days than the champion's; ConflictError: the
    champion was moved in between.
    """
    if len(reason) > REASON_LENGTH:
        raise ConfigError(
            f"the reason is {len(reason)} characters long, {REASON_LENGTH} fit into a version's tags: shorten it"
        )
    store, version = open_model(model, runs), None if version is None else str(version)
    with decision_lock(model, runs):
        known = _caught_up(store, runs, at)
    if made := _made_before(known, action, at, by, reason, version):
        return made
    before, _ = _aliases_after(known)
    wanted = _wanted(store, known, action, version)
    if action in MOVES and before != wanted:
        check(store, wanted)
    with decision_lock(model, runs):
        known = _caught_up(store, runs, at)
        champion, previous = _aliases_after(known)
        expected = before if seen is None else seen or None
        if action in MOVES and champion == wanted:  # twice the same wish
            return known[-1]
        if action in MOVES and champion != expected:
            raise ConflictError(_overtaken(store, wanted, expected, known))
        after = (wanted, champion or previous) if action in MOVES else (champion, previous)
        made = Decision(
            at=at,
            action=action,
            version=wanted,
            by=by,
            reason=reason,
            champion=after[0],
            previous=after[1],
        )
        if made not in known:
            _apply(store, made)
            _append(history_file(model, runs), made)
    return made


def alone(run: Run) -> str | None:
    """Why a run's open_model version is to be promoted without a person; None where one is to be
    asked.

    The config must say so (gate.promote_margin), the version be today's challenger, and the champion
    still be the one it was measured
    against: what a past day or a slower run has made never goes live by itself.
    """
    metrics = read_gate_report(run).metrics
    version = str(run.need("register_model").info["version"])
    reason = promotion_reason(metrics, run.config.gate)
    aliases = open_model(run.config.model_name, run.runs).aliases()
    measured = metrics.champion.version if metrics.champion else None
    current = aliases.get(CHALLENGER) == version and aliases.get(CHAMPION) == measured
    return reason if current else None


def outdated(store: RegisteredModel, version: str, champion: str) -> str | None:
    """Why a version may not replace the champion: it is of an older day, such as of a backfill.
    None where it may.
    """
    ours, theirs = (store.tags(each).get(TEST_DAY_TAG, "") for each in (version, champion))
    told = f"version {version} of {store.name!r} was tested on {ours}, champion version {champion} on {theirs}"
    return told if newer_day(theirs, ours) else None


def history(model: str, runs: Path) -> list[Decision]:
    """Every decision on a model, oldest first; empty where none was made."""
    file = history_file(model, runs)
    content = file.read_bytes() if file.is_file() else b""
    return [Decision.model_validate_json(line) for line in content[: _whole(content)].splitlines()]


def notice(model: str, runs: Path, at: datetime) -> Decision | None:
    """Write down a champion that was set in MLflow itself; the new line, None where the history is
    right as it is.
    """
    with decision_lock(model, runs):
        before = len(history(model, runs))
        known = _caught_up(open_model(model, runs), runs, at)
    return known[-1] if len(known) > before else None


def reigns(decisions: Sequence[Decision]) -> list[Reign]:
    """The champions one after the other. A decision that leaves the champion as it is starts no
    reign.
    """
    found: list[Reign] = []
    champion: str | None = None
    for made in decisions:
        if made.champion == champion:
            continue
        if champion is not None:
            found[-1] = Reign(
                found[-1].version, found[-1].since, made.at, found[-1].by, found[-1].reason
            )
        champion = made.champion
        if champion is not None:
            found.append(Reign(champion, made.at, None, made.by, made.reason))
    return found


def history_file(model: str, runs: Path) -> Path:
    """Where a model's history lies; it is made by its first decision. ConfigError on a name that
    could lead elsewhere.
    """
    if not SAFE_RUN_ID.fullmatch(model):
        raise ConfigError(
            f"model name {model!r} must be letters, digits, '.', '_' and '-' only: `dssm runs` tells the configs' names"
        )
    return Path(runs) / "history" / f"{model}.jsonl"


def _made_before(
    known: Sequence[Decision],
    action: Action,
    at: datetime,
    by: str,
    reason: str,
    version: str | None,
) -> Decision | None:
    """This very decision, where a task was killed after it and tries again: the same rollback twice
    would go forth, not back.
    """
    same = (
        made
        for made in known
        if (made.action, made.at, made.by, made.reason) == (action, at, by, reason)
    )
    return next((made for made in same if version in (None, made.version)), None)


def decision_lock(model: str, runs: Path) -> AbstractContextManager[None]:
    """One decision on a model at a time."""
    return locked(history_file(model, runs).with_suffix(".lock"), LOCK_TIMEOUT_S, "promotion")


def _wanted(
    store: RegisteredModel, known: Sequence[Decision], action: Action, version: str | None
) -> str:
    """The version that is decided on, known to MLflow."""
    champion, previous = _aliases_after(known)
    wanted = version or (previous if action == "rollback" else store.aliases().get(CHALLENGER))
    if wanted is None:
        alias = PREVIOUS if action == "rollback" else CHALLENGER
        raise ConfigError(f"model {store.name!r} in {store.uri} has no {alias}: " + _HINTS[alias])
    store.tags(wanted)  # it must be there
    if action == "promote" and champion and (told := outdated(store, wanted, champion)):
        raise ConfigError(
            f"{told}: promote a version of that day or later, or go back on purpose with `dssm rollback --version`"
        )
    return wanted


_HINTS = {
    CHALLENGER: "run the pipeline, or give a version",
    PREVIOUS: "nothing was champion before today's; give the version to go back to",
}


def _caught_up(store: RegisteredModel, runs: Path, at: datetime) -> list[Decision]:
    """The history, with a line for aliases that it does not know of yet. The caller holds the lock."""
    known, now = history(store.name, runs), store.aliases()
    champion, previous = now.get(CHAMPION), now.get(PREVIOUS)
    if (champion, previous) == _aliases_after(known):
        return known
    found = _unwritten(store, champion, known)
    if found and found.previous is not None:
        store.point(PREVIOUS, found.previous)
    found = found or _moved(store, at, champion, previous, known)
    _append(history_file(store.name, runs), found)
    return [*known, found]


def _moved(
    store: RegisteredModel,
    at: datetime,
    champion: str | None,
    previous: str | None,
    known: Sequence[Decision],
) -> Decision:
    """What somebody did in MLflow itself, which leaves `previous_champion` where it was: it
    follows, so that a rollback goes back.
    """
    last, before = _aliases_after(known)
    if champion and last and champion != last and previous in (before, champion):
        store.point(PREVIOUS, previous := last)
    return Decision(
        at=at,
        action="moved",
        version=champion,
        by="MLflow",
        reason="",
        champion=champion,
        previous=previous,
    )


def _unwritten(
    store: RegisteredModel, champion: str | None, known: Sequence[Decision]
) -> Decision | None:
    """The move from the last known champion to this one whose process was killed before it wrote
    its line.
    """
    text = store.tags(champion).get(DECISION) if champion else None
    found = Decision.model_validate_json(text) if text else None
    last, previous = _aliases_after(known)
    expected = (champion, last or previous)
    return (
        found
        if found
        and last != champion
        and (found.champion, found.previous) == expected
        and found not in known
        else None
    )


def _aliases_after(known: Sequence[Decision]) -> tuple[str | None, str | None]:
    """champion and previous_champion as the history leaves them."""
    return (known[-1].champion, known[-1].previous) if known else (None, None)


def _apply(store: RegisteredModel, made: Decision) -> None:
    """Tags first; `champion` moves in one step, so that readers always find one, and with it the
    decision is made.
    """
    version = str(made.version)
    told = {"action": made.action, "by": made.by, "reason": made.reason, "at": made.at.isoformat()}
    store.tag(
        version,
        {DECISION: made.model_dump_json()}
        | {f"dssm.decision.{name}": text for name, text in told.items()},
    )
    if made.action in MOVES:
        store.point(CHAMPION, version)
        if made.previous is not None:
            store.point(PREVIOUS, made.previous)


def _overtaken(
    store: RegisteredModel, wanted: str, expected: str | None, known: Sequence[Decision]
) -> str:
    last = known[-1]
    return (
        f"version {wanted} of {store.name!r} was not made champion: that was decided against champion {expected or 'none'}, but {last.by} "
        f"made it {last.champion or 'none'} at {last.at:%Y-%m-%d %H:%M:%S %Z}; compare with that one and decide again"
    )


def _append(file: Path, made: Decision) -> None:
    """Add a line: all of it or, on a full disk, nothing. What a machine that went down has left of
    a line makes room for it.
    """
    line = (made.model_dump_json() + "\n").encode()
    with disk_errors(file):
        descriptor = os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            size = _whole(file.read_bytes())
            os.ftruncate(descriptor, size)
            if os.write(descriptor, line) != len(line):
                os.ftruncate(descriptor, size)
                raise OSError(28, "No space left on device")
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _whole(content: bytes) -> int:
    """How many bytes of a file are whole lines."""
    return content.rfind(b"\n") + 1
