"""The section `data` and the features of a proposal: what the files hold."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from duckdb import DuckDBPyConnection

from dssm_core.columns import CREATED, ITEM, USER
from dssm_core.errors import shown
from dssm_core.inspection.columns import Column
from dssm_core.inspection.draft import Draft
from dssm_core.inspection.features import Feature, context_features, has_unreadable, table_features
from dssm_core.inspection.log import Log
from dssm_core.inspection.roles import guess_label
from dssm_core.inspection.tables import COVERED, SideTable, find_side
from dssm_core.inspection.times import TimeGuess
from dssm_core.inspection.words import EVENT, words_of

INTERACTIONS = "data.source.interactions"
WEIGHTS = (1, 3, 10, 30, 100)  # of kinds of events, most frequent first: an example for a person
SIDES = {"users": USER, "items": ITEM}


def add_data(con: DuckDBPyConnection, draft: Draft, log: Log) -> None:
    """Add the source, what counts as a positive, and the features of all tables."""
    sides = _find_sides(con, draft, log)
    draft.settings["data"] = {"source": _source(draft, log, sides), "timezone": "UTC"}
    events = _add_positive(draft, log)
    columns: dict[str, list[Feature]] = {}
    for table, side in sides.items():
        taken = {side.key, side.created or side.key}
        found = table_features(con, side.table.sample, side.table.columns, taken)
        columns |= {table.removesuffix("s"): found} if found else {}
        _allow_unreadable(draft, table, side, found)
    taken_in_log = log.roles.taken | set(log.mapping.values()) | events
    if log.table.history:
        taken_in_log.add(log.table.history.column)
    context = context_features(log.table.columns, taken_in_log)
    columns |= {"context": context} if context else {}
    draft.settings["features"] = {"columns": columns} if columns else {}
    if context:
        draft.doubt(
            "features.columns.context",
            "keep only what is known when the event begins, such as a device; not what follows from"
            " it, such as seconds read",
        )


def _allow_unreadable(draft: Draft, table: str, side: SideTable, features: list[Feature]) -> None:
    """Let cells that are no number be missing values where most cells of a feature are numbers."""
    names = [feature["column"] for feature in features if feature["kind"] == "numeric"]
    if gaps := [name for name in names if has_unreadable(side.table.columns[name])]:
        draft.allow("allow_unreadable", table)
        draft.doubt(
            "validation.allow_unreadable",
            f"cells of {', '.join(map(shown, gaps))} of {table} that are no number are missing"
            " values",
        )


def _find_sides(con: DuckDBPyConnection, draft: Draft, log: Log) -> dict[str, SideTable]:
    """The tables of users and items, which must be in the files of the same kind as the log."""
    rest = [other for other in log.others if other.group.kind == log.table.group.kind]
    sides: dict[str, SideTable] = {}
    for name, column in (("users", log.roles.user), ("items", log.roles.item)):
        if column is None:
            continue
        side, problems = find_side(con, SIDES[name], log.table, column, rest)
        for problem in problems:
            draft.doubt("data.source", problem)
        if side is not None:
            sides[name] = side
            if side.covered < COVERED:
                draft.allow("allow_missing", name)
                draft.doubt(
                    "validation.allow_missing",
                    f"{shown(side.table.group.pattern)} has {side.covered:.1%} of the ids of"
                    f" {shown(column)}: rows with the others are kept, with missing columns",
                )
            rest = [other for other in rest if other.sample != side.table.sample]
    return sides


def _source(draft: Draft, log: Log, sides: Mapping[str, SideTable]) -> dict[str, Any]:
    draft.say("data.source.path", "--data replaces it")
    for text in (*log.table.doubts, *log.time.doubts, *log.roles.doubts):
        draft.doubt(INTERACTIONS, text)
    source: dict[str, Any] = {
        "kind": log.table.group.kind,
        "path": str(log.table.group.root.resolve()),
        "interactions": _table(log.table.settings(), log.mapping, log.time),
    }
    if log.roles.user is None:
        source["interactions"]["anonymous"] = True
    if log.table.explode:
        draft.say(f"{INTERACTIONS}.explode", "each item of a cell is a row")
    if log.table.history:
        draft.doubt(
            f"{INTERACTIONS}.history",
            "taken for what a user had before the log, not for clicks of it: the user's first cell"
            " counts",
        )
    for name, side in sides.items():
        mapping = {SIDES[name]: side.key} if side.key != SIDES[name] else {}
        if side.created:
            mapping |= {CREATED: side.created} if side.created != CREATED else {}
            draft.doubt(f"data.source.{name}", "clicks before created_at go to quarantine")
        for text in side.table.doubts:
            draft.doubt(f"data.source.{name}", text)
        source[name] = _table(side.table.settings(log.table.format), mapping, side.time)
    return source


def _table(
    settings: dict[str, Any], columns: Mapping[str, str], time: TimeGuess | None
) -> dict[str, Any]:
    """The settings of a table: files, columns, times, format."""
    mapped = {"columns": dict(columns)} if columns else {}
    written = time.settings if time else {}
    return {"files": settings.pop("files"), **mapped, **written, **settings}


def _add_positive(draft: Draft, log: Log) -> set[str]:
    """Add what counts as a positive, where the log says more than clicks. Returns the columns of
    kinds of events, which are no context.
    """
    data = draft.settings["data"]
    if log.roles.label:
        label = guess_label(log.table.columns[log.roles.label])
        data |= {"positive": label.positive, "labels": list(label.labels)}
        if label.doubt:
            draft.doubt("data.positive", label.doubt)
        return set()
    events = [
        column
        for name, column in log.table.columns.items()
        if set(words_of(name)) & EVENT and len(column.values) > 1
    ]
    draft.say("data", "the log has no label: every row is a positive")
    kinds = [column for column in events if _is_kind(column)]
    for column in kinds[:1]:
        data["positive"] = f"{column.name} in {list(column.values)!r}"
        draft.doubt("data.positive", _advice(column))
    for column in (column for column in events if column not in kinds[:1]):
        values = ", ".join(map(shown, column.values[:10]))
        draft.doubt(
            "data", f"{shown(column.name)} has the values {values}, and each counts as a positive"
        )
    return {column.name for column in kinds}


def _is_kind(column: Column) -> bool:
    """Whether a column says the kind of an event, by a few words that a condition can name."""
    plain = all(re.fullmatch(r"[\w .:/-]+", value) for value in column.values)
    return column.name.isidentifier() and plain and column.numbers == 0.0


def _advice(column: Column) -> str:
    """What to think of where each kind of event is a positive."""
    advice = "remove the kinds of events that are no wish, such as a dislike"
    if len(column.values) > len(WEIGHTS):
        return advice
    weights = ", ".join(
        f"{value}: {weight}" for value, weight in zip(column.values, WEIGHTS, strict=False)
    )
    return (
        f"{advice}; rarer kinds may count more, such as data.weight:"
        f" {{column: {column.name}, values: {{{weights}}}}} (docs/weights.md)"
    )
