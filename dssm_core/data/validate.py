"""Judge the log with Great Expectations: rows that break a rule are quarantined, a log that breaks
one is refused.

Every rule is stated once, as a `Rule`; Great Expectations is what judges it. DuckDB only prepares
slim frames (the rows of the window and the columns that rules are about) and writes what Great
Expectations decided.
"""

from __future__ import annotations

import logging
import math
import os
import shutil
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow.parquet as pq
from duckdb import DuckDBPyConnection
from numpy.typing import NDArray

from dssm_core.columns import (
    CREATED,
    INTERACTIONS,
    ITEM,
    ITEMS,
    LABEL,
    REASON,
    ROW,
    TIME,
    USER,
    USERS,
)
from dssm_core.config import Config, DriftLimits, Feature
from dssm_core.data import drift
from dssm_core.data.comparison import parse_comparison
from dssm_core.data.database import connect, write_parquet
from dssm_core.data.ingest import compared_columns, number_columns, number_sql
from dssm_core.data.sources.canonical import RAW
from dssm_core.data.split import log_days, window_of
from dssm_core.data.splits.days import Days
from dssm_core.data.sql import identifier, literal, numbered_rows
from dssm_core.errors import DataError
from dssm_core.families import did_you_mean
from dssm_core.runs.layout import QUARANTINE_FILE, table_file
from dssm_core.runs.manifest import Outcome
from dssm_core.runs.run import Run

if TYPE_CHECKING:
    import pandas as pd

log = logging.getLogger(__name__)

DAYS = "days"
KNOWN = "_known"  # suffix: whether the id is in its table
EXAMPLES = 5
TABLE_FILES = {
    INTERACTIONS: table_file(INTERACTIONS),
    USERS: table_file(USERS),
    ITEMS: table_file(ITEMS),
}


@dataclass(frozen=True)
class Rule:
    """What must hold of one column, as an expectation's class name and settings, with its words for
    people.

    quarantines: rows that break it are set aside; warns: it is only told; otherwise the first break
    refuses the log.
    """

    kind: str
    column: str
    says: str
    fix: str
    quarantines: bool = False
    settings: dict[str, Any] = field(default_factory=dict)
    warns: bool = False


@dataclass(frozen=True)
class Verdict:
    """Great Expectations' answer to one rule. broken of judged rows; examples: values that broke
    it, or their days.
    """

    table: str
    rule: Rule
    passed: bool
    broken: int
    judged: int
    examples: tuple[str, ...]
    rows: NDArray[np.int64]

    @property
    def sentence(self) -> str:
        """What failed, by how much, and what to do."""
        such = f" (such as {', '.join(self.examples)})" if self.examples else ""
        extent = (
            f": {self.broken} of {self.judged} do not{such}"
            if self.judged and self.broken
            else such
        )
        return f"{self.table}: {self.rule.says}{extent}; {self.rule.fix}"


def validate(run: Run, work: Path) -> Outcome:
    """Write the clean interactions.parquet, users.parquet, items.parquet, quarantine.parquet,
    drift.json and data_docs/.

    Judged are the rows of the window and those without a readable time; the others pass on for the
    split to count.
    rows: read = clean + quarantined. Raises DataError with every failed expectation when a rule for
    the whole log fails or too many rows break one; the Data Docs are then in `<run>/validate_data.failed/data_docs`.
    info: what broke a rule, and `drift`, what only warns.
    """
    with connect(work) as con:
        _view(con, run.step("ingest_data"))
        verdicts = _judge_all(con, run.config, run.step("ingest_data"), work)
        broken = _broken_rows(verdicts)
        judged = max(
            (verdict.judged for verdict in verdicts if verdict.table == INTERACTIONS), default=0
        )
        most = max(
            (verdict.broken for verdict in verdicts if verdict.rule.quarantines), default=0
        )  # may be unlisted
        share = max(len(broken), most) / max(judged, 1)
        ingested = run.step("ingest_data")
        unknown = [*_absent(run.config, ingested), *_unknown_ranges(run.config, ingested)]
        problems = [*unknown, *_problems(verdicts, share, run.config, con)]
        if problems:
            raise DataError("\n".join([*problems, "All rules and rows: data_docs/index.html"]))
        rows = _write(con, run.config, broken, run.step("ingest_data"), work)
    failed = [verdict.sentence for verdict in verdicts if verdict.broken and not verdict.rule.warns]
    drifted = [verdict.sentence for verdict in verdicts if verdict.broken and verdict.rule.warns]
    for sentence in drifted:
        log.warning("%s", sentence)
    info = {
        "judged": judged,
        "quarantine_share": round(share, 6),
        "rules": len(verdicts),
        "broken_rules": failed,
        "drift": drifted,
        "docs": "data_docs/index.html",
    }
    return Outcome(rows={"read": run.need("ingest_data").rows["read"]} | rows, info=info)


def _view(con: DuckDBPyConnection, folder: Path) -> None:
    """View `log`: the ingested rows with their number."""
    con.execute(f"CREATE VIEW log AS {numbered_rows(folder / TABLE_FILES[INTERACTIONS])}")


def _judge_all(con: DuckDBPyConnection, config: Config, folder: Path, work: Path) -> list[Verdict]:
    """Every table's verdicts, in the order of the rules; the Data Docs of all and drift.json in
    `work`.
    """
    docs = work / "data_docs"
    shutil.rmtree(docs, ignore_errors=True)
    judge = _Judge(docs, config.validation.max_quarantine_share)
    split, verdicts = config.split, []
    if isinstance(split, Days):
        found = drift.measure(con, config, split, folder)
        drift.save(found, work)
        verdicts += judge.judge(DAYS, _days_frame(found), _days_rules(config, split), DAYS)
        for table, level, warns in (("drift", "warn", True), ("drift limit", "fail", False)):
            if rules := _drift_rules(found, getattr(config.validation.drift, level), level, warns):
                verdicts += judge.judge(table, _drift_frame(found), rules, DAYS)
    for table, file in TABLE_FILES.items():
        wanted = _wanted(config, table)
        if not (folder / file).is_file():
            continue
        columns = pq.read_schema(folder / file).names
        rules = [*_existence(table, wanted, columns), *_rules(config, table, columns, folder)]
        verdicts += judge.judge(table, _frame(con, config, table, columns, folder), rules, ROW)
    return verdicts


# --- rules ----------------------------------------------------------------------------------------------------------


def _days_rules(config: Config, split: Days) -> list[Rule]:
    least = config.validation.min_rows_per_day
    first, last = split.days[0], split.days[-1]
    return [
        Rule(
            "ExpectColumnSumToBeBetween",
            "rows",
            f"some rows must lie in the window {first} to {last} ({config.data.timezone})",
            "set split.test_day to a day of the log, or check the time unit",
            settings={"min_value": 1},
        ),
        Rule(
            "ExpectColumnValuesToBeBetween",
            "rows",
            f"each day of the window must have at least {least} rows",
            "find out why the day is short, set split.test_day to another, or lower validation.min_rows_per_day",
            settings={"min_value": least},
        ),
    ]


def _drift_rules(found: drift.Drift, limits: DriftLimits, level: str, warns: bool) -> list[Rule]:
    """A rule for each measure that has a limit at this level."""
    what = {
        drift.VOLUME: "the rows of a day",
        drift.NEW_ITEMS: "the share of a day's rows whose item the day before did not have",
    }
    rules = []
    for name in found.changes:
        measure, _, column = name.partition(".")
        limit: float | None = getattr(limits, measure)
        if limit is not None:
            says = f"{what.get(measure, f'the values of {column} on a day')} must be within {limit:g} of the days before"
            fix = f"find out what changed, or raise validation.drift.{level}.{measure}"
            rules.append(
                Rule(
                    "ExpectColumnValuesToBeBetween",
                    name,
                    says,
                    fix,
                    settings={"max_value": limit},
                    warns=warns,
                )
            )
    return rules


def _wanted(config: Config, table: str) -> list[str]:
    """The columns that the config speaks of and the table must have."""
    columns = config.features.columns
    features: dict[str, tuple[Feature, ...]] = {
        INTERACTIONS: columns.context,
        USERS: columns.user,
        ITEMS: columns.item,
    }
    wanted = [feature.column for feature in features[table] if feature.in_table]
    if table == INTERACTIONS:
        wanted += columns.targets()
    if table == INTERACTIONS:
        wanted += sorted(
            compared_columns(config) - {LABEL}
        )  # without `label` every row is a positive
    return wanted


def _absent(config: Config, folder: Path) -> list[str]:
    """A sentence for each table that the config speaks of and the source does not have."""
    return [
        f"features.columns names {', '.join(wanted)} of {table}, but the source has no {table} table: add it, or leave them out"
        for table, file in TABLE_FILES.items()
        if not (folder / file).is_file() and (wanted := _wanted(config, table))
    ]


def _unknown_ranges(config: Config, folder: Path) -> list[str]:
    """A sentence for each column that has a range but is in none of the tables."""
    columns = {
        name
        for file in TABLE_FILES.values()
        if (folder / file).is_file()
        for name in pq.read_schema(folder / file).names
    }
    known = sorted(name for name in columns if not name.endswith(RAW))
    return [
        f"validation.ranges names {name!r}, which no table has: {did_you_mean(name, known)}"
        for name in config.validation.ranges
        if name not in columns
    ]


def _existence(table: str, wanted: Iterable[str], columns: Sequence[str]) -> list[Rule]:
    own = [name for name in columns if not name.endswith(RAW)]
    return [
        Rule(
            "ExpectColumnToExist",
            name,
            f"there must be a column {name!r}",
            "" if name in own else f"{did_you_mean(name, own)} (the config names it)",
        )
        for name in dict.fromkeys(wanted)
    ]


def _rules(config: Config, table: str, columns: Sequence[str], folder: Path) -> list[Rule]:
    """The rules of a table's rows. Those of users and items refuse the log, those of interactions
    quarantine rows.
    """
    own = table == INTERACTIONS
    keys = {INTERACTIONS: (USER, ITEM, TIME), USERS: (USER,), ITEMS: (ITEM,)}[table]
    rules = [
        _readable(name, own)
        for name in (TIME, CREATED, *sorted(number_columns(config)), *config.validation.ranges)
        if name in columns
    ]
    rules += [_present(name, own) for name in keys]
    if not own:
        rules.append(
            Rule(
                "ExpectColumnValuesToBeUnique",
                keys[0],
                f"{keys[0]} must be unique",
                f"keep one row for each id in {table}",
            )
        )
    else:
        rules += _label_rules(config, columns)
        rules += [
            _known(key, other)
            for key, other in ((USER, USERS), (ITEM, ITEMS))
            if (folder / TABLE_FILES[other]).is_file()
        ]
    rules += [
        _range(name, *limits, own)
        for name, limits in config.validation.ranges.items()
        if name in columns
    ]
    return list({(rule.kind, rule.column): rule for rule in rules}.values())


def _readable(name: str, quarantines: bool) -> Rule:
    what = "a time" if name in (TIME, CREATED) else "a number"
    return Rule(
        "ExpectColumnValuesToBeNull",
        name + RAW,
        f"{name} must be {what}",
        "mend the values, or check the column's mapping and unit",
        quarantines,
    )


def _present(name: str, quarantines: bool) -> Rule:
    return Rule(
        "ExpectColumnValuesToNotBeNull",
        name,
        f"{name} must not be missing",
        "mend the rows, or check the column's mapping",
        quarantines,
    )


def _label_rules(config: Config, columns: Sequence[str]) -> list[Rule]:
    name = parse_comparison(config.data.positive).column
    if name not in columns:
        return []
    allowed = [float(value) for value in config.data.labels]
    says = f"{name} must be one of {', '.join(f'{value:g}' for value in allowed)}"
    fix = "mend the rows, or list the value in data.labels"
    return [
        _present(name, True),
        Rule("ExpectColumnValuesToBeInSet", name, says, fix, True, {"value_set": allowed}),
    ]


def _known(key: str, table: str) -> Rule:
    says, fix = (
        f"{key} must be in {table}",
        f"add the missing rows to {table}, or leave the table out of the source",
    )
    return Rule(
        "ExpectColumnValuesToBeInSet", f"{key}{KNOWN}", says, fix, True, {"value_set": [True]}
    )


def _range(name: str, low: float | None, high: float | None, quarantines: bool) -> Rule:
    says = f"{name} must lie in {'-inf' if low is None else f'{low:g}'} to {'inf' if high is None else f'{high:g}'}"
    settings = {"min_value": low, "max_value": high}
    return Rule(
        "ExpectColumnValuesToBeBetween",
        name,
        says,
        "mend the rows, or widen validation.ranges",
        quarantines,
        settings,
    )


HOLDS: dict[str, Callable[[str, dict[str, Any]], list[str]]] = {
    "ExpectColumnValuesToBeNull": lambda column, settings: [f"{column} IS NULL"],
    "ExpectColumnValuesToNotBeNull": lambda column, settings: [f"{column} IS NOT NULL"],
    "ExpectColumnValuesToBeInSet": lambda column, settings: [
        f"{column} IN ({', '.join(map(str, settings['value_set']))})"
    ],
    "ExpectColumnValuesToBeBetween": lambda column, settings: [
        f"{column} {sign} {settings[end]}"
        for sign, end in ((">=", "min_value"), ("<=", "max_value"))
        if settings[end] is not None
    ],
}  # in SQL, what a rule that quarantines expects of a value; like Great Expectations' they have no opinion of NULL


def unbroken(config: Config, columns: Sequence[str], folder: Path) -> str:
    """SQL: the rows (`_row`) of view `log` that break no rule which quarantines. No Data Docs: for
    rows that are read again every hour.

    folder: of the tables as ingested, whose interactions have `columns`.
    """
    rules = [rule for rule in _rules(config, INTERACTIONS, columns, folder) if rule.quarantines]
    names = sorted({rule.column for rule in rules})
    parts = ", ".join(
        [
            ROW,
            *(_column(config, name, columns, folder / TABLE_FILES[INTERACTIONS]) for name in names),
        ]
    )
    holds = [
        f"coalesce({held}, true)"
        for rule in rules
        for held in HOLDS[rule.kind](identifier(rule.column), rule.settings)
    ]
    return f"SELECT {ROW} FROM (SELECT {parts} FROM log) WHERE {' AND '.join(holds)}"


# --- frames ---------------------------------------------------------------------------------------------------------


def _days_frame(found: drift.Drift) -> pd.DataFrame:
    """One row a local day of the window: days, rows."""
    import pandas as pd

    return pd.DataFrame({DAYS: found.days, "rows": found.rows})


def _drift_frame(found: drift.Drift) -> pd.DataFrame:
    """One row a day of the window: days, and its distance from the days before by each measure
    (NaN: none to compare with).
    """
    import pandas as pd

    changes = {
        name: [math.nan if value is None else value for value in values]
        for name, values in found.changes.items()
    }
    return pd.DataFrame({DAYS: found.days, **changes})


def _frame(
    con: DuckDBPyConnection, config: Config, table: str, columns: Sequence[str], folder: Path
) -> pd.DataFrame:
    """The rows to judge and the columns that the table's rules are about, with their number."""
    file = folder / TABLE_FILES[table]
    names = {rule.column for rule in _rules(config, table, columns, folder)} | set(
        _wanted(config, table)
    ) & set(columns)
    parts = ", ".join([ROW, *(_column(config, name, columns, file) for name in sorted(names))])
    query = f"SELECT {parts} FROM (SELECT *, row_number() OVER () - 1 AS {ROW} FROM read_parquet({literal(str(file))}))"
    if table == INTERACTIONS:
        window = window_of(config)
        inside = (
            f"{TIME} IS NULL OR ({TIME} >= {window.start_ms} AND {TIME} < {window.end_ms})"
            if window
            else "true"
        )
        query = f"SELECT {parts} FROM log WHERE {inside}"
    frame: pd.DataFrame = con.sql(query).to_arrow_table().to_pandas()
    return frame


def _column(config: Config, name: str, columns: Sequence[str], file: Path) -> str:
    """SQL: a column that a rule is about. One with a range that is text in the file is read as
    numbers here.
    """
    stem = name.removesuffix(RAW)
    if name not in columns and stem not in columns:
        return _membership(name.removesuffix(KNOWN), file.parent)
    is_text = str(pq.read_schema(file).field(stem).type) == "string"
    if stem in config.validation.ranges and is_text:
        return number_sql(stem)[name.endswith(RAW)]
    return identifier(name) if name in columns else f"CAST(NULL AS VARCHAR) AS {identifier(name)}"


def _membership(key: str, folder: Path) -> str:
    file = literal(str(folder / TABLE_FILES[USERS if key == USER else ITEMS]))
    return (
        f"{key} IN (SELECT {key} FROM read_parquet({file}) WHERE {key} IS NOT NULL) AS {key}{KNOWN}"
    )


# --- Great Expectations ---------------------------------------------------------------------------------------------


class _Judge:
    """A Great Expectations context whose Data Docs lie in one folder.

    limit: the share of rows beyond which a rule's broken rows are not listed, as the log is refused
    anyway.
    """

    def __init__(self, docs: Path, limit: float) -> None:
        self.limit = limit
        os.environ["GX_ANALYTICS_ENABLED"] = "false"  # read when the package is imported
        import great_expectations as gx  # takes seconds: only here

        self.gx: Any = gx
        self.context: Any = gx.get_context(mode="ephemeral")
        self.context.variables.progress_bars = {"globally": False}
        self.context.delete_data_docs_site("local_site")
        store = {"class_name": "TupleFilesystemStoreBackend", "base_directory": str(docs)}
        site = {
            "class_name": "SiteBuilder",
            "site_index_builder": {"class_name": "DefaultSiteIndexBuilder"},
            "store_backend": store,
        }
        self.context.add_data_docs_site("data_docs", site)
        self.source: Any = self.context.data_sources.add_pandas("log")

    def judge(
        self, table: str, frame: pd.DataFrame, rules: Sequence[Rule], key: str
    ) -> list[Verdict]:
        """Run one table's suite as a checkpoint; `key` is the column that names a row of the frame."""
        gx, context = self.gx, self.context
        batches = self.source.add_dataframe_asset(table).add_batch_definition_whole_dataframe(
            "window"
        )
        suite = context.suites.add(
            gx.ExpectationSuite(
                name=table, expectations=[self._expectation(rule) for rule in rules]
            )
        )
        definition = context.validation_definitions.add(
            gx.ValidationDefinition(name=table, data=batches, suite=suite)
        )
        format_ = {
            "result_format": "SUMMARY",
            "unexpected_index_column_names": [key],
            "partial_unexpected_count": EXAMPLES,
        }
        action = gx.checkpoint.UpdateDataDocsAction(name="docs")
        checkpoint = gx.Checkpoint(
            name=table, validation_definitions=[definition], actions=[action], result_format=format_
        )
        run = context.checkpoints.add(checkpoint).run(batch_parameters={"dataframe": frame})
        (result,) = run.run_results.values()
        batch = batches.get_batch({"dataframe": frame})
        answers = {
            (answer.expectation_config.type, answer.expectation_config.kwargs["column"]): answer
            for answer in result.results
        }
        return [self._verdict(table, rule, answers[self._name(rule)], batch, key) for rule in rules]

    def _expectation(self, rule: Rule) -> Any:
        return getattr(self.gx.expectations, rule.kind)(
            column=rule.column, description=rule.says, **rule.settings
        )

    def _name(self, rule: Rule) -> tuple[str, str]:
        return getattr(self.gx.expectations, rule.kind).expectation_type, rule.column

    def _verdict(self, table: str, rule: Rule, answer: Any, batch: Any, key: str) -> Verdict:
        if answer.exception_info.get("raised_exception"):
            raise DataError(
                f"{table}: {rule.says} could not be judged: {answer.exception_info['exception_message']}"
            )
        result = answer.result
        broken = int(result.get("unexpected_count") or 0)
        judged = int(result.get("element_count") or 0)
        wanted = rule.quarantines and 0 < broken <= self.limit * judged
        rows = self._rows(rule, batch, key) if wanted else np.empty(0, np.int64)
        return Verdict(
            table,
            rule,
            bool(answer.success),
            broken,
            judged,
            _examples(result, key, rule.column),
            rows,
        )

    def _rows(self, rule: Rule, batch: Any, key: str) -> NDArray[np.int64]:
        """The rows that break a rule, asked for only when there are any: their list is what costs."""
        complete = {
            "result_format": "COMPLETE",
            "unexpected_index_column_names": [key],
            "partial_unexpected_count": 0,
        }
        answer = batch.validate(self._expectation(rule), result_format=complete)
        return np.array([index[key] for index in answer.result["unexpected_index_list"]], np.int64)


def _examples(result: dict[str, Any], key: str, column: str) -> tuple[str, ...]:
    """A few values that broke a rule; of days, the day too."""
    if key == DAYS:
        indexes = result.get("partial_unexpected_index_list") or []
        return tuple(f"{index[DAYS]} has {_short(index[column])}" for index in indexes)
    values = [
        value
        for value in result.get("partial_unexpected_list") or []
        if value == value and value is not None
    ]
    return tuple(
        dict.fromkeys(
            repr(value.item() if isinstance(value, np.generic) else value)
            for value in values
            if value is not False
        )
    )


def _short(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


# --- what follows from the verdicts ---------------------------------------------------------------------------------


def _broken_rows(verdicts: Sequence[Verdict]) -> dict[int, str]:
    """The row number of each broken interaction with the first rule it breaks."""
    broken: dict[int, str] = {}
    for verdict in verdicts:
        for row in verdict.rows.tolist():
            broken.setdefault(row, verdict.rule.says)
    return broken


def _problems(
    verdicts: Sequence[Verdict], share: float, config: Config, con: DuckDBPyConnection
) -> list[str]:
    """Why the log is refused, a sentence each; empty when it is not."""
    limit = config.validation.max_quarantine_share
    judged = [verdict for verdict in verdicts if not verdict.passed and not verdict.rule.warns]
    refused = [verdict for verdict in judged if not verdict.rule.quarantines or share > limit]
    problems = [verdict.sentence for verdict in refused]
    if any(verdict.table == DAYS for verdict in refused):
        problems.append(f"{log_days(con, config)}.")
    if share > limit:
        most = f"validation.max_quarantine_share {limit:.2%}"
        problems.append(
            f"at least {share:.2%} of the rows would be quarantined, more than {most}: mend them, or raise it."
        )
    return problems


def _write(
    con: DuckDBPyConnection, config: Config, broken: dict[int, str], folder: Path, work: Path
) -> dict[str, int]:
    """Write the clean tables (without the raw texts, which are empty now) and the quarantine; rows
    of both.
    """
    import pyarrow as pa

    table = pa.table(
        {
            ROW: pa.array(list(broken), pa.int64()),
            REASON: pa.array(list(broken.values()), pa.string()),
        }
    )
    con.register("broken", table)
    raw = {name + RAW for name in (TIME, CREATED, *number_columns(config))}
    for name, file in TABLE_FILES.items():
        if name != INTERACTIONS and (folder / file).is_file():
            kept = ", ".join(
                identifier(column)
                for column in pq.read_schema(folder / file).names
                if column not in raw
            )
            write_parquet(
                con, f"SELECT {kept} FROM read_parquet({literal(str(folder / file))})", work / file
            )
    columns = list(pq.read_schema(folder / TABLE_FILES[INTERACTIONS]).names)
    kept = ", ".join(identifier(column) for column in columns if column not in raw)
    everything = ", ".join(f"log.{identifier(column)}" for column in columns)
    clean = write_parquet(
        con,
        f"SELECT {kept} FROM log WHERE {ROW} NOT IN (SELECT {ROW} FROM broken) ORDER BY {ROW}",
        work / TABLE_FILES[INTERACTIONS],
    )
    set_aside = (
        f"SELECT {everything}, broken.{REASON} FROM log JOIN broken USING ({ROW}) ORDER BY {ROW}"
    )
    return {
        "clean": clean,
        "quarantined": write_parquet(con, set_aside, work / QUARANTINE_FILE),
    }
