"""What ran and on which data: steps, rules and drift, the champion's days, settings."""

from __future__ import annotations

import json

import pandas as pd

from dssm_core.data import drift
from dssm_core.data.splits.days import Days
from dssm_core.report import plots
from dssm_core.report.parts import Absent, ReportSection, ReportTable, picture
from dssm_core.report.subject import Subject
from dssm_core.report.text import share
from dssm_core.runs.layout import DATA_CHECKS_FILE
from dssm_core.runs.manifest import Manifest
from dssm_core.runs.table import STEPS
from dssm_core.tracking.runs import flatten

COLUMNS_DRAWN = 6  # columns in the picture of drift


def steps(subject: Subject) -> ReportSection:
    """The steps with their rows, and the sum that accounts for every row."""
    manifests = {name: subject.run.manifest(name) for name in STEPS}
    rows = [
        (name, STEPS[name].title, _counts(subject, name, manifest), _duration(manifest))
        for name, manifest in manifests.items()
    ]
    says = [
        "Each step of the run, in order. A step without a time was not finished when this page was"
        " written."
    ]
    if split := manifests["split_by_time"]:
        parts = [name for name in ("train", "test", "outside", "quarantined") if name in split.rows]
        total = " + ".join(f"{split.rows[part]:,} {part}" for part in parts)
        says.append(f"{split.rows['read']:,} rows read = {total}")
    head = ("step", "what it does", "rows", "time")
    return ReportSection("Steps", says, tables=[ReportTable(head, rows)])


def _counts(subject: Subject, step: str, manifest: Manifest | None) -> str:
    rows = manifest.rows if manifest else {}
    if manifest is None and step == "recall_gate" and subject.report:
        rows = subject.metrics.queries.as_json() if subject.metrics.queries else {}
    return ", ".join(f"{count:,} {name}" for name, count in rows.items()) or "–"


def _duration(manifest: Manifest | None) -> str:
    if manifest is None:
        return ""
    if manifest.reused_from:
        return f"reused from {manifest.reused_from}"
    return f"{manifest.seconds:.1f}\u00a0s"


def data_checks(subject: Subject) -> ReportSection:
    """The validation rules, what broke them, and how the days differ."""
    info = subject.run.need("validate_data").info
    broken = [*info["broken_rules"], *info.get("drift", [])]
    says = [
        f"Great Expectations checked {info['rules']} rules on {info['judged']:,} rows;"
        f" {info['quarantine_share']:.2%} of them are quarantined. The page {DATA_CHECKS_FILE}"
        " of the step lists every rule.",
        "All rules passed." if not broken else "Rules that failed, and warnings:",
        *broken,
    ]
    found = drift.load(subject.run.step("validate_data"))
    if found is None:
        split_has_days = isinstance(subject.run.config.split, Days)
        why = "an older version wrote this run" if split_has_days else "the split has no days"
        return ReportSection("Data", [*says, f"Drift between days was not measured: {why}."])
    days = days_section(found)
    return ReportSection("Data", says, days.pictures, days.tables)


def days_section(found: drift.Drift) -> ReportSection:
    """Each day against the days before it, as a picture and as a table."""
    caption = (
        "Each day compared with the days before it. Volume: rows, as a share of their mean. New"
        " items: share of rows whose item did not occur the day before, minus its mean. Columns:"
        f" Jensen-Shannon divergence in bits, the {COLUMNS_DRAWN} columns that changed most."
    )
    lines = _main_lines(found)
    columns = {"day": found.days, "rows": found.rows, **lines}
    drawn = picture(caption, pd.DataFrame(columns), plots.days, found.days, found.rows, lines)
    head = ("day", "rows", *found.changes)
    table = ReportTable(head, _by_day(found), "Distances of each day", numbers=True, folded=True)
    return ReportSection("Days", pictures=[drawn], tables=[table])


def _main_lines(found: drift.Drift) -> dict[str, list[float | None]]:
    """Volume, new items and the columns that changed most, by title."""

    def largest(name: str) -> float:
        return max((value for value in found.changes[name] if value is not None), default=0.0)

    columns = [name for name in found.changes if name.startswith(drift.FEATURES)]
    changed_most = sorted(columns, key=largest, reverse=True)[:COLUMNS_DRAWN]
    return {
        name.partition(".")[2] or name.replace("_", " "): found.changes[name]
        for name in (drift.VOLUME, drift.NEW_ITEMS, *changed_most)
    }


def _by_day(found: drift.Drift) -> list[list[str]]:
    changes = [[share(value) for value in found.changes[name]] for name in found.changes]
    return [
        [day, f"{rows:,}", *distances]
        for day, rows, *distances in zip(found.days, found.rows, *changes, strict=True)
    ]


def champion_days(subject: Subject) -> ReportSection:
    """How this run's days differ from the days that the champion was trained on."""
    champion = subject.metrics.champion
    if champion is None:
        raise Absent("there is no champion yet")
    rows = drift.describe_change(champion.drift)
    if not rows:
        raise Absent(f"champion version {champion.version} has no statistics of its data")
    says = [
        f"What changed in the data since champion version {champion.version} was trained."
        " A champion that lacks the items of today loses to any newer model."
        " A column that changed much may mean that the log changed, not the users."
    ]
    table = ReportTable(("what", "change"), rows, numbers=True)
    return ReportSection("Data since the champion", says, tables=[table])


def settings(subject: Subject) -> ReportSection:
    """Every setting of the run."""
    flat = flatten(subject.run.config.model_dump(mode="json"))
    rows = [(key, json.dumps(value, ensure_ascii=False)) for key, value in flat.items()]
    table = ReportTable(("setting", "value"), rows, f"All {len(rows)} settings", folded=True)
    return ReportSection("Settings", tables=[table])
