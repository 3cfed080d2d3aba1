"""A config that is proposed from the files of a log, with what a person should check."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from duckdb import DuckDBPyConnection

from dssm_core.config import Config, Resources, parse_config
from dssm_core.config.base import SAFE_NAME
from dssm_core.config.yaml_text import load_yaml
from dssm_core.data.database import UNREADABLE, connect, unreadable
from dssm_core.errors import ConfigError, DataError, shown
from dssm_core.inspection import facts, sizes
from dssm_core.inspection.commented_yaml import commented
from dssm_core.inspection.draft import Draft
from dssm_core.inspection.files import find_groups
from dssm_core.inspection.log import Log, find_log
from dssm_core.inspection.source import INTERACTIONS, add_data
from dssm_core.inspection.tables import open_tables
from dssm_core.inspection.times import zone_doubt

ONCE = 0.01  # share of repeated pairs below which users do not take an item twice
FULL_SOFTMAX_ITEMS = 20_000  # in the catalogue, up to which a loss over all of it is cheap


@dataclass(frozen=True)
class Proposal:
    """The text of a config; what is unsure of it, a sentence each; and what was read."""

    text: str
    doubts: tuple[str, ...]
    read: str


def propose(path: Path, name: str, chosen: Mapping[str, str]) -> Proposal:
    """A config for the log in a folder or file, called `name`.

    chosen: column by canonical name (user_id, item_id, timestamp) where a person has said it.
    Raises DataError if there is no log, saying what was seen and how to go on.
    """
    if not SAFE_NAME.fullmatch(name):
        raise ConfigError(f"--name {shown(name)}: use a-z, 0-9, - and _ only, such as my-log")
    groups = find_groups(path)
    among = groups[:1] if path.is_file() else groups
    with tempfile.TemporaryDirectory() as folder:
        try:
            with connect(Path(folder) / "sample", Resources()) as con:
                tables, problems = open_tables(con, groups)
                log = find_log(con, tables, problems, chosen, among)
                draft = Draft({"name": name})
                add_data(con, draft, log)
                counted = facts.count(con, _provisional(draft))
                _add_facts(draft, counted, log)
                _add_split(con, draft, counted, log)
        except UNREADABLE as error:
            raise unreadable(error) from error
    for pattern, problem in problems.items():
        draft.doubt("data.source", f"{shown(pattern)} is not read: {problem}")
    text = commented(draft.settings, draft.remarks, _head(path))
    parse_config(load_yaml(text))
    return Proposal(text, draft.doubts, _read(counted))


def name_of(path: Path) -> str:
    """A name for the dataset in a folder or file."""
    stem = path.resolve().name.partition(".")[0].lower()
    return re.sub(r"[^a-z0-9]+", "-", stem).strip("-")[:50] or "my-log"


def _head(path: Path) -> str:
    return (
        f"Proposed by `dssm init` from {shown(str(path))}.\n"
        "What it is unsure of begins with CHECK: correct it, or delete the comment.\n"
        "`dssm settings KEY` explains a setting."
    )


def _read(counted: facts.Facts) -> str:
    """What was read, for people."""
    size = f"{counted.rows:,} rows, {counted.users:,} users, {counted.items:,} items"
    return f"the first {size}" if counted.cut else size


def _provisional(draft: Draft) -> Config:
    """The settings so far as a config, to read the log by."""
    return parse_config(
        draft.settings
        | {"features": {"activity": {"enabled": False}}, "split": {"kind": "leave_one_out"}}
        | {"sampler": {"kind": "uniform"}, "evaluation": {"baselines": ["hot"]}}
    )


def _add_facts(draft: Draft, counted: facts.Facts, log: Log) -> None:
    """Say what the whole log is like. DataError if it has no positive."""
    if not counted.positives:
        raise DataError(
            f"{shown(log.table.group.pattern)} has no positive: no row has a user, an item and"
            " `data.positive`. Check the columns, or write the config by hand"
            " (configs/example-own-log.yaml)"
        )
    if counted.cut:
        draft.doubt(
            "data.source", f"only the first {counted.rows:,} rows were read: later days are unknown"
        )
    if counted.untimed:
        draft.doubt(
            INTERACTIONS,
            f"{counted.untimed:,} of {counted.rows:,} rows have no readable time and go to"
            " quarantine",
        )
    draft.say("name", _read(counted))
    if log.roles.time is None:
        return
    draft.doubt("data.timezone", f"where a day begins; {zone_doubt(counted.hours, counted.end_ms)}")


def _add_split(con: DuckDBPyConnection, draft: Draft, counted: facts.Facts, log: Log) -> None:
    """Add the split, and what follows from it: features, sampler, lists and gate."""
    sessions = log.roles.user is None
    window = sizes.choose_window(counted.days) if log.roles.time else None
    by_days = facts.day_sizes(con, window, sessions) if window else facts.DaySizes(0, 0)
    if sessions and window is None:
        raise DataError(_no_days_of_sessions(log))
    if window and (sessions or by_days.queries >= min(sizes.ENOUGH_QUERIES, counted.asked)):
        validation = draft.settings.setdefault("validation", {})
        validation["min_rows_per_day"] = sizes.least_rows(window.fewest)
        draft.say(
            "validation.min_rows_per_day", f"half of the shortest day, which has {window.fewest:,}"
        )
        draft.settings["split"] = {"test_day": window.test_day, "train_days": window.train_days}
        asked = "sessions" if sessions else "known users"
        draft.say("split", f"the last whole day; it asks {by_days.queries:,} {asked}")
        _add_lists(draft, counted, by_days.items, by_days.queries)
        if sessions:
            _add_sessions(draft)
        return
    if log.roles.time is None:
        draft.settings["split"] = {"kind": "holdout"}
        draft.doubt(
            "split",
            "the log has no times: a random fifth of each user's rows is asked. If the rows of a"
            " user are in the order of time, kind leave_one_out asks the last one",
        )
    else:
        draft.settings["split"] = {"kind": "leave_one_out"}
        draft.doubt("split", _why_no_days(window, by_days, counted))
    draft.settings.setdefault("features", {})["activity"] = {"enabled": False}
    draft.say("features.activity", "it needs a split by days")
    if counted.items <= FULL_SOFTMAX_ITEMS:
        draft.settings["loss"] = {"kind": "full_softmax"}
    else:
        draft.settings["sampler"] = {"kind": "popularity"}
    _add_lists(draft, counted, counted.items, counted.asked)
    if log.roles.time is None and "context" not in draft.settings["features"].get("columns", {}):
        draft.settings["train"]["target"] = "rest"
        draft.say("train.target", "in any order: the log has none")
    draft.settings["evaluation"]["baselines"] = ["hot"]


def _no_days_of_sessions(log: Log) -> str:
    return (
        f"{shown(log.table.group.pattern)} has no column of users, and too few days to ask rows of"
        " a day by their context: name the column of users with --user COLUMN"
    )


def _add_sessions(draft: Draft) -> None:
    """What a log needs whose rows are sessions: their own context, and no history."""
    features = draft.settings.setdefault("features", {})
    if features.get("columns", {}).get("context"):
        features["first_context"] = True
        draft.say("features.first_context", "a session has no earlier event to take it from")
    else:
        draft.doubt(
            "features.columns",
            "without a context, all sessions get the same list: name what is known of a session",
        )
    features["history"] = {"length": 0}
    draft.settings["gate"]["population"] = "all"
    draft.say("gate.population", "sessions are new users, all of them")
    draft.settings["evaluation"].pop("exclude_seen", None)


def _why_no_days(window: sizes.Window | None, by_days: facts.DaySizes, counted: facts.Facts) -> str:
    if window is None:
        days = len(counted.days)
        return f"{days} days with rows are too few to split by days: each user's last item is asked"
    return (
        f"only {by_days.queries:,} users of {window.test_day} are known from the"
        f" {window.train_days} days before: each user's last item is asked instead of a day"
    )


def _add_lists(draft: Draft, counted: facts.Facts, items: int, queries: int) -> None:
    """Add training, list lengths and gate. items: of the catalogue. queries: that are asked."""
    k = sizes.list_length(items)
    draft.settings["train"] = sizes.train_settings(counted.positives)
    draft.say("train.max_epochs", "goes on up to here while the last epoch is the best")
    draft.settings["evaluation"] = {"ks": sizes.list_lengths(k)}
    if counted.repeats < ONCE:
        draft.settings["evaluation"]["exclude_seen"] = True
        draft.say("evaluation.exclude_seen", f"{counted.repeats:.1%} of rows repeat a user's item")
    draft.settings["gate"] = {"k": k, "floor": 0.1}
    draft.say(
        "evaluation.ks", f"for {items:,} items; the last one is judged, and chooses the epoch"
    )
    draft.say("gate", "floor is the smallest recall that passes, which is yours to choose")
    if queries < sizes.ENOUGH_QUERIES:
        draft.doubt(
            "gate",
            f"{queries:,} queries are fewer than min_queries ({sizes.ENOUGH_QUERIES}), so no model"
            " passes",
        )
