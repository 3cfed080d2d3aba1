"""The page of the data checks: every rule with what it judged and what broke it, the days, and
quarantined rows. One file, which loads nothing from elsewhere.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import pyarrow.parquet as pq

from dssm_core.data import drift
from dssm_core.data.sources.canonical import RAW
from dssm_core.data.verdicts import Verdict, judged_rows, quarantine_share
from dssm_core.report.parts import ReportSection, ReportTable, render_page
from dssm_core.report.sections.flow import days_section
from dssm_core.runs.files import write_atomically
from dssm_core.runs.layout import DATA_CHECKS_FILE, QUARANTINE_FILE
from dssm_core.runs.run import Run
from dssm_core.tracking.origin import dag_run_of

ROWS_SHOWN = 20  # of the quarantine
LETTERS = 60  # of a value
MET, BROKEN, WARNED = "✓", "✗", "!"


def write(
    run: Run,
    work: Path,
    verdicts: Sequence[Verdict],
    rows: Mapping[str, int],
    problems: Sequence[str],
) -> None:
    """Write data_checks.html into `work`. rows: clean and quarantined interactions; problems: why
    the log is refused, empty if it is not.
    """
    config = run.config
    sections = [_rules(verdicts), _days(work), _quarantine(work)]
    page = render_page(
        title=f"Data of {config.name}, {config.split.title}",
        subtitle=f"{config.data.source.kind} {config.data.source.settings.get('path', '')}"
        f" · judged by Great Expectations · run {run.id}",
        dag_run=dag_run_of(run),
        verdict=_verdict(problems),
        cards=_cards(verdicts, rows),
        sections=sections,
    )
    write_atomically(work / DATA_CHECKS_FILE, page.encode())


def _verdict(problems: Sequence[str]) -> dict[str, object]:
    if problems:
        says = "The log was refused: nothing was trained."
        return {"kind": "not-passed", "says": says, "reasons": list(problems)}
    return {"kind": "passed", "says": "The log was accepted.", "reasons": []}


def _cards(verdicts: Sequence[Verdict], rows: Mapping[str, int]) -> list[tuple[str, str]]:
    broken = sum(1 for verdict in verdicts if verdict.broken)
    counts = [(f"{title} rows", f"{count:,}") for title, count in rows.items()]
    share = [("share to quarantine, at least", f"{quarantine_share(verdicts):.2%}")]
    judged = [("rows in the window", f"{judged_rows(verdicts):,}")]
    return [*judged, *counts, *share, ("rules", f"{len(verdicts)}"), ("rules broken", f"{broken}")]


def _rules(verdicts: Sequence[Verdict]) -> ReportSection:
    """Every rule, those that are broken first."""
    ordered = sorted(verdicts, key=lambda verdict: not verdict.broken and verdict.passed)
    rows = [
        (
            _mark(verdict),
            verdict.table,
            verdict.rule.text,
            f"{verdict.judged:,}\u00a0{verdict.unit}" if verdict.judged else "the table",
            f"{verdict.broken:,}",
            ", ".join(verdict.examples),
            verdict.rule.fix if verdict.broken or not verdict.passed else "",
        )
        for verdict in ordered
    ]
    head = ("", "table", "rule", "judged", "broken", "examples", "what to do")
    says = [f"{MET} met · {BROKEN} broken · {WARNED} a warning, which refuses nothing"]
    return ReportSection("Rules", says, tables=[ReportTable(head, rows)])


def _mark(verdict: Verdict) -> str:
    if verdict.passed and not verdict.broken:
        return MET
    return WARNED if verdict.rule.warns else BROKEN


def _days(work: Path) -> ReportSection:
    """Rows, new items and the change of columns of each day."""
    found = drift.load(work)
    if found is None:
        return ReportSection("Days", absent="The split has no days.")
    return days_section(found)


def _quarantine(work: Path) -> ReportSection:
    """The first quarantined rows with their reasons."""
    title, file = "Quarantine", work / QUARANTINE_FILE
    if not file.is_file():
        return ReportSection(title, absent="The log was refused, so that no row was moved.")
    parquet = pq.ParquetFile(file)
    total = parquet.metadata.num_rows
    if not total:
        return ReportSection(title, absent="No row is quarantined.")
    first = next(parquet.iter_batches(ROWS_SHOWN))
    names = [name.replace(RAW, "unread ") for name in first.schema.names]
    columns = (column.to_pylist() for column in first.columns)
    rows = [[_short(value) for value in row] for row in zip(*columns, strict=True)]
    says = [f"{min(total, ROWS_SHOWN)} of {total:,} rows; all are in {QUARANTINE_FILE}."]
    return ReportSection(title, says, tables=[ReportTable(names, rows)])


def _short(value: object) -> str:
    text = "" if value is None else str(value)
    return text if len(text) <= LETTERS else f"{text[: LETTERS - 1]}…"
