"""The step `validate_data`: judge the log by rules, quarantine the rows that break one, or refuse
the log.

DuckDB prepares slim frames (frames.py), Great Expectations judges them (expectations.py) by the
rules (rules.py), and DuckDB writes the result.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pyarrow as pa
from duckdb import DuckDBPyConnection

from dssm_core.aliases import JSON
from dssm_core.columns import INTERACTIONS, REASON, ROW, TIME
from dssm_core.config import Config
from dssm_core.data import drift
from dssm_core.data.column_types import type_problems
from dssm_core.data.database import connect, write_parquet
from dssm_core.data.expectations import Judge
from dssm_core.data.frames import days_frame, drift_frame, row_frames
from dssm_core.data.ingest import IngestedTables, read_ingested
from dssm_core.data.log_days import log_days
from dssm_core.data.rules import (
    DAYS,
    config_problems,
    day_rules,
    drift_rules,
    existence_rules,
    row_rules,
)
from dssm_core.data.sources.canonical import RAW
from dssm_core.data.splits.days import Days
from dssm_core.data.sql import identifier, numbered_rows, parquet, with_reason
from dssm_core.data.verdicts import (
    Verdict,
    broken_rows,
    judged_rows,
    quarantine_share,
    refusals,
    without_repeats,
)
from dssm_core.errors import DataError
from dssm_core.runs.layout import DATA_CHECKS_FILE, QUARANTINE_FILE, table_file
from dssm_core.runs.manifest import Outcome
from dssm_core.runs.run import Run

log = logging.getLogger(__name__)

DOCS = "All rules"
DRIFT_LEVELS = (("drift", "warn", True), ("drift limit", "fail", False))  # suite, level, warns


# Called with the run, the step's folder, the verdicts, the rows written, and why it is refused.
Publish = Callable[[Run, Path, Sequence[Verdict], Mapping[str, int], Sequence[str]], None]


def validate(run: Run, work: Path, publish: Publish) -> Outcome:
    """Write the clean interactions.parquet, users.parquet, items.parquet, quarantine.parquet,
    drift.json and data_docs/.

    publish: called at the end to show the verdicts to people, also before a log is refused.

    The rows of the split's window and rows without a readable time are judged; other rows are
    passed on, and the split counts them.
    Returns rows: read = clean + quarantined, and info: the rules that rows broke, and `drift`, the
    warnings. Raises DataError with every failure when a rule of the whole log fails or too many
    rows break one; what was written is then in `<run>/validate_data.failed`.
    """
    config = run.config
    tables = read_ingested(run.step("ingest_data"))
    with connect(work, config.resources) as con:
        if problems := type_problems(config, tables):
            raise DataError("\n".join(problems))
        con.execute(f"CREATE VIEW log AS {numbered_rows(tables.file(INTERACTIONS))}")
        verdicts = _judge_all(con, config, tables, work)
        problems = [*config_problems(config, tables), *_problems(verdicts, config, con)]
        rows = {} if problems else _write(con, _reasons(verdicts), tables, work)
        publish(run, work, verdicts, rows, problems)
        if problems:
            raise DataError("\n".join([*problems, f"{DOCS}: {DATA_CHECKS_FILE}"]))
    read = run.need("ingest_data").rows["read"]
    return Outcome(rows={"read": read} | rows, info=_info(verdicts))


def _judge_all(
    con: DuckDBPyConnection, config: Config, tables: IngestedTables, work: Path
) -> list[Verdict]:
    """The verdicts of days, drift and every table, in the order of the rules. Writes the Data Docs
    and drift.json into `work`.
    """
    docs = work / "data_docs"
    shutil.rmtree(docs, ignore_errors=True)
    judge = Judge(docs, config.validation.max_quarantine_share)
    split = config.split
    verdicts = (
        _judge_days(con, config, split, tables, judge, work) if isinstance(split, Days) else []
    )
    for table in tables:
        rules = [*existence_rules(config, table, tables), *row_rules(config, table, tables)]
        frames = row_frames(con, config, table, tables)
        verdicts += judge.judge(table, frames, rules, ROW, frames.rows)
    return verdicts


def _judge_days(
    con: DuckDBPyConnection,
    config: Config,
    split: Days,
    tables: IngestedTables,
    judge: Judge,
    work: Path,
) -> list[Verdict]:
    measured = drift.measure(con, config, split, tables.folder)
    drift.save(measured, work)
    verdicts = judge.judge(
        DAYS, [days_frame(measured)], day_rules(config, split), DAYS, len(measured.days)
    )
    for suite, level, warns in DRIFT_LEVELS:
        rules = drift_rules(measured, getattr(config.validation.drift, level), level, warns)
        if rules:
            verdicts += judge.judge(suite, [drift_frame(measured)], rules, DAYS, len(measured.days))
    return verdicts


def _problems(verdicts: list[Verdict], config: Config, con: DuckDBPyConnection) -> list[str]:
    """Why the log is refused, one sentence each; empty if it is not."""
    limit = config.validation.max_quarantine_share
    share = quarantine_share(verdicts)
    refused = refusals(verdicts, share, limit)
    problems = [verdict.sentence for verdict in without_repeats(refused)]
    if any(verdict.table == DAYS or verdict.rule.column == RAW + TIME for verdict in refused):
        problems.append(f"{log_days(con, config)}.")
    if share > limit:
        problems.append(
            f"at least {share:.2%} of the rows would be quarantined, more than"
            f" validation.max_quarantine_share {limit:.2%}: fix the rows, or raise the limit."
        )
    return problems


def _info(verdicts: list[Verdict]) -> JSON:
    """What the manifest says about the rules. Logs a warning for each rule that only warns."""
    broken = [verdict for verdict in verdicts if verdict.broken]
    warnings = [verdict.sentence for verdict in broken if verdict.rule.warns]
    for sentence in warnings:
        log.warning("%s", sentence)
    return {
        "judged": judged_rows(verdicts),
        "quarantine_share": round(quarantine_share(verdicts), 6),
        "rules": len(verdicts),
        "broken_rules": [verdict.sentence for verdict in broken if not verdict.rule.warns],
        "drift": warnings,
        "docs": DATA_CHECKS_FILE,
    }


def _write(
    con: DuckDBPyConnection,
    reasons: pa.Table,
    tables: IngestedTables,
    work: Path,
) -> dict[str, int]:
    """Write the clean tables (without the columns of unparsed text) and the quarantine. Returns the
    number of clean and of quarantined interactions.
    """
    selected = {
        table: ", ".join(
            identifier(name) for name in tables.columns(table) if not name.startswith(RAW)
        )
        for table in tables
    }
    for table in tables:
        if table != INTERACTIONS:
            rows = f"SELECT {selected[table]} FROM {parquet(tables.file(table))}"
            write_parquet(con, rows, work / table_file(table))
    con.register("broken", reasons)
    # Without broken rows the log is in order, and need not be sorted again.
    clean = f"WHERE {ROW} NOT IN (SELECT {ROW} FROM broken) ORDER BY {ROW}" if len(reasons) else ""
    columns = with_reason(tables.columns(INTERACTIONS), f"broken.{REASON}")
    return {
        "clean": write_parquet(
            con,
            f"SELECT {selected[INTERACTIONS]} FROM log {clean}",
            work / table_file(INTERACTIONS),
        ),
        "quarantined": write_parquet(
            con,
            f"SELECT {columns} FROM log JOIN broken USING ({ROW}) ORDER BY {ROW}",
            work / QUARANTINE_FILE,
        ),
    }


def _reasons(verdicts: list[Verdict]) -> pa.Table:
    """The number of each interaction to quarantine, and the first rule that it breaks."""
    rows, first = broken_rows(verdicts)
    texts = pa.array([verdict.rule.text for verdict in verdicts], pa.string())
    return pa.table({ROW: rows, REASON: texts.take(pa.array(first))})
