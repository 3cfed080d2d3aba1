"""Promotion and rollback: the only way to move the alias `champion`, with its history.

A decision writes the tags of the version first, then moves `champion` and `previous_champion`, then
appends the line to the history. If a process is killed in between, the next decision or `notice`
completes it from the tags.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from dssm_core.errors import ConfigError, ConflictError, masked
from dssm_core.gate.rules import promotion_reason
from dssm_core.operation.history import (
    Action,
    Decision,
    aliases_after,
    append,
    history,
    history_file,
    history_lock,
)
from dssm_core.registry.versions import (
    CHALLENGER,
    CHAMPION,
    PREVIOUS,
    RegisteredModel,
    newer_day,
    open_model,
)
from dssm_core.runs.gate_report import read_gate_report
from dssm_core.runs.run import Run
from dssm_core.tracking.runs import TEST_DAY_TAG

MOVES = ("promote", "rollback")  # the actions that move the champion
REPLACED = {"promote": "replaced by", "rollback": "rolled back to"}
DECISION_TAG = "dssm.decision"  # the latest decision about a version, as JSON
OUTCOME_TAG = "dssm.decision.action"  # what it means today: later decisions about others change it
GATE = "gate"  # who decides if no person is asked
REASON_LENGTH = 1000  # as in the forms of the Dags
ADVICE = {
    CHALLENGER: "run the pipeline, or give a version",
    PREVIOUS: "nothing was champion before today's; give the version to go back to",
}


@dataclass(frozen=True)
class Unrecorded:
    """A change of the aliases in MLflow that the history does not have yet.

    previous: the version that `previous_champion` must be pointed to; None if it is right already.
    """

    decision: Decision
    previous: str | None


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
    """Apply a decision on a version and record it.

    `promote` and `rollback` move `champion` and `previous_champion`. The same decision twice is
    one.

    Args:
        version: None is the challenger or, for a rollback, `previous_champion`.
        seen: the champion that the decision was made against; None is today's, "" is none.
        check: called with a version that is to become champion; raises if it must not.

    Raises:
        ConfigError: the version does not exist, is of an older day than the champion, or the
            history is of another MLflow server.
        ConflictError: the champion was moved in between.
    """
    if len(reason) > REASON_LENGTH:
        raise ConfigError(
            f"the reason is {len(reason)} characters long, {REASON_LENGTH} fit into a version's "
            "tags: shorten it"
        )
    store = open_model(model, runs)
    version = None if version is None else str(version)
    with history_lock(model, runs):
        decisions = _caught_up(store, runs, at)
    if repeated := _repeated(decisions, action, at, by, reason, version):
        return repeated
    before, _ = aliases_after(decisions)
    target = _target(store, decisions, action, version)
    if action in MOVES and before != target:
        check(store, target)
    with history_lock(model, runs):
        decisions = _caught_up(store, runs, at)
        champion, previous = aliases_after(decisions)
        expected = before if seen is None else seen or None
        if action in MOVES and champion == target:
            return decisions[-1]
        if action in MOVES and champion != expected:
            raise ConflictError(_conflict(store, target, expected, decisions[-1]))
        after = (target, champion or previous) if action in MOVES else (champion, previous)
        decision = _decision(store, at, action, target, by, reason, after)
        if decision not in decisions:
            _apply(store, decision, champion)
            append(history_file(model, runs), decision)
    return decision


def alone(run: Run) -> str | None:
    """The reason to promote a run's version without asking a person; None if a person decides.

    The config must allow it (gate.promote_margin), the version must be today's challenger, and the
    champion must still be the one that it was compared with. So a version of a past day or of a
    slow run is never promoted without a person.
    """
    metrics = read_gate_report(run).metrics
    version = str(run.need("register_model").info["version"])
    reason = promotion_reason(metrics, run.config.gate)
    aliases = open_model(run.config.model_name, run.runs).aliases()
    compared = metrics.champion.version if metrics.champion else None
    current = aliases.get(CHALLENGER) == version and aliases.get(CHAMPION) == compared
    return reason if current else None


def outdated(store: RegisteredModel, version: str, champion: str) -> str | None:
    """Why a version may not replace the champion: it is of an older day, such as of a backfill.

    None if it may.
    """
    day = store.tags(version).get(TEST_DAY_TAG, "")
    champion_day = store.tags(champion).get(TEST_DAY_TAG, "")
    if not newer_day(champion_day, day):
        return None
    return (
        f"version {version} of {store.name!r} was tested on {day}, "
        f"champion version {champion} on {champion_day}"
    )


def notice(model: str, runs: Path, at: datetime) -> Decision | None:
    """Record a champion that was set in MLflow itself; the new line, None if there is nothing to
    record.
    """
    with history_lock(model, runs):
        before = len(history(model, runs))
        decisions = _caught_up(open_model(model, runs), runs, at)
    return decisions[-1] if len(decisions) > before else None


def current_history(model: str, runs: Path, at: datetime) -> list[Decision]:
    """The history and, as its last line, a change in MLflow that is not recorded yet.

    Writes nothing, neither to the history nor to MLflow. ConfigError if the history is of another
    MLflow server.
    """
    decisions = history(model, runs)
    unrecorded = _unrecorded(open_model(model, runs), decisions, at)
    return [*decisions, unrecorded.decision] if unrecorded else decisions


def _decision(
    store: RegisteredModel,
    at: datetime,
    action: Action,
    version: str | None,
    by: str,
    reason: str,
    aliases: tuple[str | None, str | None],
) -> Decision:
    champion, previous = aliases
    return Decision(
        at=at,
        action=action,
        version=version,
        by=by,
        reason=reason,
        champion=champion,
        previous=previous,
        server=masked(store.uri),
        created_ms=store.created_ms(),
    )


def _repeated(
    decisions: Sequence[Decision],
    action: Action,
    at: datetime,
    by: str,
    reason: str,
    version: str | None,
) -> Decision | None:
    """The recorded decision that a retried task repeats, None if it is new.

    Without it, a rollback that is retried would go forward again.
    """
    same = (
        decision
        for decision in decisions
        if (decision.action, decision.at, decision.by, decision.reason) == (action, at, by, reason)
    )
    return next((decision for decision in same if version in (None, decision.version)), None)


def _target(
    store: RegisteredModel, decisions: Sequence[Decision], action: Action, version: str | None
) -> str:
    """The version that is decided on; ConfigError if it does not exist or is outdated."""
    champion, previous = aliases_after(decisions)
    default = previous if action == "rollback" else store.aliases().get(CHALLENGER)
    if version is None and action == "rollback" and _rolled_back(decisions):
        raise ConfigError(
            f"version {champion} of {store.name!r} became champion by a rollback, so a second one"
            f" would return to version {previous}, which was left then: give the version that you"
            f" want, such as {previous}"
        )
    target = version or default
    if target is None:
        alias = PREVIOUS if action == "rollback" else CHALLENGER
        raise ConfigError(f"model {store.name!r} in {store.uri} has no {alias}: {ADVICE[alias]}")
    store.tags(target)  # raises if the version does not exist
    if action == "promote" and champion and (problem := outdated(store, target, champion)):
        raise ConfigError(
            f"{problem}: promote a version of that day or later, or go back on purpose with "
            "`dssm rollback --version`"
        )
    return target


def _rolled_back(decisions: Sequence[Decision]) -> bool:
    """Whether today's champion became champion by a rollback."""
    moves = [decision for decision in decisions if decision.action in (*MOVES, "moved")]
    return bool(moves) and moves[-1].action == "rollback"


def _caught_up(store: RegisteredModel, runs: Path, at: datetime) -> list[Decision]:
    """The history after recording a change in MLflow that it did not have. The caller holds the
    lock.
    """
    decisions = history(store.name, runs)
    unrecorded = _unrecorded(store, decisions, at)
    if unrecorded is None:
        return decisions
    if unrecorded.previous is not None:
        store.point(PREVIOUS, unrecorded.previous)
    append(history_file(store.name, runs), unrecorded.decision)
    return [*decisions, unrecorded.decision]


def _unrecorded(
    store: RegisteredModel, decisions: Sequence[Decision], at: datetime
) -> Unrecorded | None:
    """The change in MLflow since the last line of the history, None if there is none."""
    _check_server(store, decisions)
    aliases = store.aliases()
    now = (aliases.get(CHAMPION), aliases.get(PREVIOUS))
    if now == aliases_after(decisions):
        return None
    if interrupted := _interrupted(store, now[0], decisions):
        return Unrecorded(interrupted, interrupted.previous)
    return _moved(store, at, now, decisions)


def _check_server(store: RegisteredModel, decisions: Sequence[Decision]) -> None:
    """ConfigError if the history is of another MLflow server.

    A server with another address but the same model, created at the same time, is the same one.
    """
    last = decisions[-1] if decisions else None
    if last is None or last.server is None or masked(last.server) == masked(store.uri):
        return
    created_ms = store.created_ms()
    if created_ms is None or created_ms != last.created_ms:
        raise ConfigError(
            f"the history of model {store.name!r} is of MLflow at {last.server}, and this command "
            f"uses {store.uri}: set MLFLOW_TRACKING_URI to {last.server}, or use another folder "
            "of runs (--runs, DSSM_RUNS)"
        )


def _moved(
    store: RegisteredModel,
    at: datetime,
    aliases: tuple[str | None, str | None],
    decisions: Sequence[Decision],
) -> Unrecorded:
    """What a person did in MLflow itself.

    If only `champion` was moved, `previous_champion` must follow, so that a rollback goes back.
    """
    champion, previous = aliases
    last, before = aliases_after(decisions)
    follows = bool(champion and last and champion != last and previous in (before, champion))
    after = (champion, last if follows else previous)
    decision = _decision(store, at, "moved", champion, "MLflow", "", after)
    return Unrecorded(decision, last if follows else None)


def _interrupted(
    store: RegisteredModel, champion: str | None, decisions: Sequence[Decision]
) -> Decision | None:
    """The decision that moved the champion and was killed before it was recorded, from its tag."""
    text = store.tags(champion).get(DECISION_TAG) if champion else None
    if text is None:
        return None
    decision = Decision.model_validate_json(text)
    last, previous = aliases_after(decisions)
    fits = (decision.champion, decision.previous) == (champion, last or previous)
    return decision if last != champion and fits and decision not in decisions else None


def _apply(store: RegisteredModel, decision: Decision, champion: str | None) -> None:
    """Write the tags of the version and of the champion that it replaces, then move `champion` with
    one request: readers always find one.
    """
    version = str(decision.version)
    store.tag(version, {DECISION_TAG: decision.model_dump_json(), OUTCOME_TAG: decision.action})
    store.note(version, _sentence(decision.action, decision))
    if decision.action in MOVES:
        if champion is not None:
            replaced = f"{REPLACED[decision.action]} version {version}"
            store.tag(champion, {OUTCOME_TAG: replaced})
            store.note(champion, _sentence(replaced, decision))
        store.point(CHAMPION, version)
        if decision.previous is not None:
            store.point(PREVIOUS, decision.previous)


def _sentence(outcome: str, decision: Decision) -> str:
    """What a decision means for a version: when, by whom and why."""
    reason = f": {decision.reason}" if decision.reason else ""
    return f"{outcome}, {decision.at:%Y-%m-%d %H:%M %Z}, by {decision.by}{reason}"


def _conflict(store: RegisteredModel, target: str, expected: str | None, last: Decision) -> str:
    return (
        f"version {target} of {store.name!r} was not made champion: that was decided against "
        f"champion {expected or 'none'}, but {last.by} made it {last.champion or 'none'} at "
        f"{last.at:%Y-%m-%d %H:%M:%S %Z}; compare with that version and decide again"
    )
