"""The rules of a log. Each is stated once, as a `Rule`, and judged by Great Expectations.

Rules of interactions quarantine the rows that break them; rules of days, users and items refuse the
whole log.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from difflib import SequenceMatcher
from typing import Any

from dssm_core.columns import (
    AVAILABLE_FROM,
    AVAILABLE_UNTIL,
    INTERACTIONS,
    INTERNAL,
    ITEM,
    ITEMS,
    LABEL,
    TIME,
    USER,
    USERS,
)
from dssm_core.config import Config, DriftLimits, Feature, Weight
from dssm_core.config.log_columns import compared_columns, label_is_optional, number_columns
from dssm_core.config.row_conditions import label_column, read_row_condition
from dssm_core.data import drift
from dssm_core.data.ingest import IngestedTables
from dssm_core.data.sources.canonical import RAW, TIMES
from dssm_core.data.splits.days import Days
from dssm_core.data.vectors import ARROW_LIST, SIDES
from dssm_core.errors import shorten
from dssm_core.families import did_you_mean

DAYS = "days"
ALIKE = 0.8  # ratio of common letters above which a name is taken for a misspelt one
IN_TABLE = (
    f"{INTERNAL}in_table_"  # prefix of the column that says whether an id is in its own table
)
NEVER_AVAILABLE = f"{INTERNAL}never_available"  # the ids of items that are at no time
WRONG_VECTOR = f"{INTERNAL}wrong_vector_"  # prefix of the column that says what is wrong with one
HAS_VECTOR = f"{INTERNAL}has_vector_"  # prefix of the column that says whether a row has one
UNWEIGHTED = f"{INTERNAL}unweighted"  # the cells of positives that data.weight gives no weight
KEYS = {INTERACTIONS: (USER, ITEM, TIME), USERS: (USER,), ITEMS: (ITEM,)}
ID_TABLES = {USER: USERS, ITEM: ITEMS}


@dataclass(frozen=True)
class Rule:
    """An expectation of Great Expectations (class name and settings) about one column.

    text: the rule in words. fix: what to do when it is broken. quarantines: rows that break it are
    quarantined; warns: it is only reported; otherwise the first row that breaks it refuses the log.
    """

    kind: str
    column: str
    text: str
    fix: str
    quarantines: bool = False
    settings: dict[str, Any] = field(default_factory=dict)
    warns: bool = False


def day_rules(config: Config, split: Days) -> list[Rule]:
    """Rules of the frame of days (one row a day, column `rows`)."""
    least = config.validation.min_rows_per_day
    first = split.days[0]
    last = split.days[-1]
    return [
        Rule(
            "ExpectColumnSumToBeBetween",
            "rows",
            f"some rows must lie in the window {first} to {last} ({config.data.timezone})",
            "set split.test_day to a day of the log, or correct time_unit of the timestamp",
            settings={"min_value": 1},
        ),
        Rule(
            "ExpectColumnValuesToBeBetween",
            "rows",
            f"each day of the window must have at least {least} rows",
            "find out why days are short, choose another split.test_day, or lower"
            " validation.min_rows_per_day",
            settings={"min_value": least},
        ),
    ]


def drift_rules(measured: drift.Drift, limits: DriftLimits, level: str, warns: bool) -> list[Rule]:
    """A rule for each measure of drift that has a limit. level: `warn` or `fail`, the section of
    validation.drift.
    """
    rules = []
    for name in measured.changes:
        measure, _, column = name.partition(".")
        limit: float | None = getattr(limits, measure)
        if limit is None:
            continue
        rules.append(
            Rule(
                "ExpectColumnValuesToBeBetween",
                name,
                _drift_text(measure, column, limit),
                f"find out what changed, or raise validation.drift.{level}.{measure}",
                settings={"max_value": limit},
                warns=warns,
            )
        )
    return rules


def _drift_text(measure: str, column: str, limit: float) -> str:
    if measure == drift.VOLUME:
        return f"a day's number of rows must be within {limit:.0%} of the mean of the days before"
    if measure == drift.NEW_ITEMS:
        return (
            "a day's share of rows with an item that the day before did not have must be within"
            f" {limit:g} of the mean of the days before"
        )
    return (
        f"the distribution of {column} on a day must be within {limit:g} bits (Jensen-Shannon"
        " divergence) of the days before"
    )


def required_columns(config: Config, table: str) -> list[str]:
    """The columns that the config names and the table must have."""
    columns = config.features.columns
    features: dict[str, tuple[Feature, ...]] = {
        INTERACTIONS: columns.context,
        USERS: columns.user,
        ITEMS: columns.item,
    }
    required = [feature.column for feature in features[table] if feature.in_table]
    if table == INTERACTIONS:
        required += columns.targets()
        # without `label`, or a name that resembles it, every row is a positive
        optional = {LABEL} if label_is_optional(config) else set()
        required += sorted(compared_columns(config) - optional)
        required += [config.data.weight.column] if config.data.weight else []
    return required


def existence_rules(config: Config, table: str, tables: IngestedTables) -> list[Rule]:
    """A rule for each column that the table must have."""
    names = [name for name in tables.columns(table) if not name.startswith(RAW)]
    required = required_columns(config, table)
    if table == INTERACTIONS and LABEL in compared_columns(config):
        required += [LABEL for name in names if _resembles(name, LABEL)]
    return [
        Rule(
            "ExpectColumnToExist",
            name,
            f"there must be a column {name!r}, which the config names",
            "" if name in names else did_you_mean(name, names),
        )
        for name in dict.fromkeys(required)
    ]


def _resembles(name: str, other: str) -> bool:
    """Whether a name is another one in another case or with a letter too many, or misspelt."""
    return SequenceMatcher(None, name.lower(), other).ratio() > ALIKE or (
        sorted(name.lower()) == sorted(other)
    )


def config_problems(config: Config, tables: IngestedTables) -> list[str]:
    """A sentence for each table and each range column that the config names and the log lacks."""
    missing = [
        f"features.columns names {', '.join(names)} of {table}, but the source has no {table}"
        f" table: add data.source.{table}, or remove these features"
        for table in KEYS
        if table not in tables and (names := required_columns(config, table))
    ]
    columns = sorted({name for table in tables for name in tables.columns(table)})
    hints = [name for name in columns if not name.startswith(RAW)]
    unknown = [
        f"validation.ranges names {name!r}, which no table has: {did_you_mean(name, hints)}"
        for name in config.validation.ranges
        if name not in columns
    ]
    validation = config.validation
    lenient = {
        "allow_missing": validation.allow_missing,
        "allow_unreadable": validation.allow_unreadable,
    }
    idle = [
        f"validation.{name} names {table}, but the source has no {table} table: leave it out"
        for name, chosen in lenient.items()
        for table in chosen
        if table not in tables
    ]
    return missing + unknown + idle


def row_rules(config: Config, table: str, tables: IngestedTables) -> list[Rule]:
    """The rules of a table's rows."""
    columns = tables.columns(table)
    quarantines = table == INTERACTIONS
    parsed = (*TIMES[table], *sorted(number_columns(config)), *config.validation.ranges)
    lenient = table in config.validation.allow_unreadable
    rules = [_parsed(name, table, lenient) for name in parsed if name in columns]
    rules += [_present(name, quarantines) for name in KEYS[table]]
    if table == INTERACTIONS:
        rules += _label_rules(config, columns)
        optional = config.validation.allow_missing
        rules += [
            _in_table(key, other, other in optional)
            for key, other in ID_TABLES.items()
            if other in tables
        ]
        if config.data.weight and set(required_columns(config, table)) <= set(columns):
            rules.append(_weighted(config.data.weight))
    else:
        rules.append(_unique(KEYS[table][0], table))
        rules += _vector_rules(config, table, tables)
    if table == ITEMS and {AVAILABLE_FROM, AVAILABLE_UNTIL} <= set(columns):
        rules.append(_ever_available())
    rules += [
        _range(name, *limits, quarantines)
        for name, limits in config.validation.ranges.items()
        if name in columns
    ]
    return list({(rule.kind, rule.column): rule for rule in rules}.values())


def _parsed(name: str, table: str, lenient: bool) -> Rule:
    is_time = name in TIMES[table]
    warns = lenient and not is_time  # an item whose end is unknown would be listed for ever
    if is_time:
        what = "a time"
        fix = "fix the values, or check the column's mapping and time_unit or time_format"
    elif warns:
        what = "a number"
        fix = "these cells are missing values (validation.allow_unreadable)"
    else:
        what = "a number"
        fix = "fix the values, or check the column's mapping"
        if table != INTERACTIONS:
            fix += f", or let them be missing: validation.allow_unreadable: [{table}]"
    return Rule(
        "ExpectColumnValuesToBeNull",
        RAW + name,
        f"{name} must be {what}",
        fix,
        quarantines=table == INTERACTIONS,
        warns=warns,
    )


def _present(name: str, quarantines: bool) -> Rule:
    return Rule(
        "ExpectColumnValuesToNotBeNull",
        name,
        f"{name} must not be missing",
        "fix the rows, or check the column's mapping",
        quarantines,
    )


def _unique(key: str, table: str) -> Rule:
    return Rule(
        "ExpectColumnValuesToBeUnique",
        key,
        f"{key} must be unique",
        f"keep one row for each id in {table}",
    )


def _vector_rules(config: Config, table: str, tables: IngestedTables) -> list[Rule]:
    side, _ = SIDES[table]
    return [
        rule
        for feature in config.features.columns.vectors(side)
        if tables.types[table].get(feature.column) == ARROW_LIST
        for rule in (
            Rule(
                "ExpectColumnValuesToBeNull",
                WRONG_VECTOR + feature.column,
                f"{feature.column} must be vectors of one length, of finite numbers",
                "correct these vectors, or leave them out: a missing one is zeros",
            ),
            Rule(
                "ExpectColumnValuesToNotBeNull",
                HAS_VECTOR + feature.column,
                f"{feature.column} should not be missing",
                "the model sees zeros for these rows: add their vectors",
                warns=True,
            ),
        )
    ]


def _ever_available() -> Rule:
    return Rule(
        "ExpectColumnValuesToBeNull",
        NEVER_AVAILABLE,
        f"{AVAILABLE_UNTIL} must be after {AVAILABLE_FROM}",
        "these items are never listed: fix the times",
        warns=True,
    )


def _label_rules(config: Config, columns: list[str]) -> list[Rule]:
    name = label_column(read_row_condition(config.data.positive))
    if name is None or name not in columns:
        return []
    if config.data.labels is None:
        return [_present(name, True)]
    allowed = [float(value) for value in config.data.labels]
    listed = ", ".join(f"{value:g}" for value in allowed)
    return [
        _present(name, True),
        Rule(
            "ExpectColumnValuesToBeInSet",
            name,
            f"{name} must be one of {listed}",
            "fix the rows, add the value to data.labels, or set this to null for every number",
            True,
            {"value_set": allowed},
        ),
    ]


def _weighted(weight: Weight) -> Rule:
    texts = [f"`{shorten(text)}`" for text in weight.values or ()]
    allowed = f"one of {', '.join(texts)}" if texts else "a number of at least 0"
    fix = "add the value to data.weight.values" if texts else "check data.weight.column"
    return Rule(
        "ExpectColumnValuesToBeNull",
        UNWEIGHTED,
        f"{weight.column} of a positive must be {allowed}, which its weight comes from",
        f"fix the rows, or {fix}",
        quarantines=True,
    )


def _in_table(key: str, table: str, optional: bool) -> Rule:
    fix = (
        f"these rows are kept, and the columns of {table} are missing (validation.allow_missing)"
        if optional
        else f"add the missing rows to {table}, remove data.source.{table}, or keep the"
        f" interactions: validation.allow_missing: [{table}]"
    )
    return Rule(
        "ExpectColumnValuesToBeInSet",
        f"{IN_TABLE}{key}",
        f"{key} must be in {table}",
        fix,
        quarantines=not optional,
        settings={"value_set": [True]},
        warns=optional,
    )


def _range(name: str, low: float | None, high: float | None, quarantines: bool) -> Rule:
    least = "-inf" if low is None else f"{low:g}"
    most = "inf" if high is None else f"{high:g}"
    return Rule(
        "ExpectColumnValuesToBeBetween",
        name,
        f"{name} must lie in {least} to {most}",
        "fix the rows, or widen validation.ranges",
        quarantines,
        {"min_value": low, "max_value": high},
    )


def _between(column: str, settings: dict[str, Any]) -> list[str]:
    bounds = ((">=", settings["min_value"]), ("<=", settings["max_value"]))
    return [f"{column} {sign} {bound}" for sign, bound in bounds if bound is not None]


def _in_set(column: str, settings: dict[str, Any]) -> list[str]:
    return [f"{column} IN ({', '.join(map(str, settings['value_set']))})"]


CONDITIONS: dict[str, Callable[[str, dict[str, Any]], list[str]]] = {
    "ExpectColumnValuesToBeNull": lambda column, settings: [f"{column} IS NULL"],
    "ExpectColumnValuesToNotBeNull": lambda column, settings: [f"{column} IS NOT NULL"],
    "ExpectColumnValuesToBeInSet": _in_set,
    "ExpectColumnValuesToBeBetween": _between,
}  # SQL conditions of the expectations that quarantine; NULL meets the last two, as in the library
