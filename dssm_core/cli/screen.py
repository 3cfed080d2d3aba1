"""What the commands print for people: tables, the progress of steps, the summary of a run."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from dssm_core.cli.terminal import console
from dssm_core.runs.layout import REPORT_FILE

if TYPE_CHECKING:
    from dssm_core.aliases import JSON
    from dssm_core.inspection.check import Findings
    from dssm_core.inspection.proposal import Proposal
    from dssm_core.operation.history import Decision, Reign
    from dssm_core.runs.gate_report import Scores
    from dssm_core.runs.manifest import Manifest
    from dssm_core.runs.run import Run

VERDICTS = {None: "", True: "passed", False: "did not pass"}


def print_table(table: Table) -> None:
    """Print a table to stdout."""
    Console().print(table)


def print_step_start(name: str) -> None:
    """Say that a step starts."""
    from dssm_core.runs.table import STEPS

    console.print(f"[bold cyan]▶[/] {name:<18} [dim]{STEPS[name].title}", soft_wrap=True)


def print_step_end(manifest: Manifest) -> None:
    """Say how long a step took, or from which run it was reused, and its row counts.

    What a reused step noted is said again; a step that ran has logged it.
    """
    rows = ", ".join(f"{count:,} {title}" for title, count in manifest.rows.items())
    if manifest.reused_from:
        duration = f"reused from {manifest.reused_from}"
    else:
        duration = f"{manifest.seconds:.1f} s"
    done = f"[bold green]✓[/] {manifest.step:<18} {duration:<8} [dim]{rows}"
    console.print(done, highlight=False, soft_wrap=True)
    for note in manifest.info.get("notes", []) if manifest.reused_from else []:
        console.print(f"  {note}", markup=False, highlight=False, soft_wrap=True)


def runs_table(runs: Iterable[Run]) -> Table:
    """The runs: dataset and id, test day, steps done, served recall, verdict, version."""
    from dssm_core.gate.rules import judged
    from dssm_core.runs.gate_report import GateMetrics
    from dssm_core.runs.pipeline import summary
    from dssm_core.runs.table import STEPS

    table = plain_table()
    table.add_column("run", overflow="fold")  # whole ids, also in a narrow terminal
    for column in ("test day", "steps", "recall", "gate", "version"):
        table.add_column(column)
    for run in runs:
        result = summary(run)
        recall = ""
        if result["metrics"]:
            gate = run.config.gate
            answers, label = judged(GateMetrics.model_validate(result["metrics"]), gate)
            recall = f"{_metric(answers.served.value(gate.metric))} ({label})"
        table.add_row(
            f"{run.config.name}/{run.id}",
            result["test_day"],
            f"{len(result['seconds'])}/{len(STEPS)}",
            recall,
            VERDICTS[result["gate"]["passed"] if result["gate"] else None],
            str(result["version"] or ""),
        )
    return table


def trials_table(results: Sequence[JSON]) -> Table:
    """The trials of a sweep in the given order: recall, interval, training time, query time."""
    table = plain_table("trial", results[0]["metric"], "interval", "train, s", "ms a query")
    for row in results:
        table.add_row(escape(row["label"]), *_trial_cells(row))
    return table


def _trial_cells(row: JSON) -> list[str]:
    if row["recall"] is None:
        return ["failed"]
    interval = "" if row["low"] is None else f"{row['low']:.3f} to {row['high']:.3f}"
    query_ms = "" if row["ms_per_query"] is None else f"{row['ms_per_query']:.3f}"
    return [f"{row['recall']:.4f}", interval, f"{row['train_seconds']:.0f}", query_ms]


def reigns_table(reigns: Iterable[Reign]) -> Table:
    """The champions, the newest last."""
    table = plain_table("version", "champion from", "until", "by", "reason")
    for reign in reigns:
        table.add_row(
            reign.version,
            _minute(reign.since),
            _minute(reign.until) if reign.until else "today",
            escape(reign.by),
            escape(reign.reason),
        )
    return table


def decisions_table(decisions: Iterable[Decision]) -> Table:
    """The decisions, the newest last."""
    table = plain_table("at", "decision", "version", "champion", "by", "reason")
    for decision in decisions:
        table.add_row(
            _minute(decision.at),
            decision.action,
            decision.version,
            decision.champion,
            escape(decision.by),
            escape(decision.reason),
        )
    return table


def print_summary(result: JSON, out: Console = console) -> None:
    """Print the summary of a run: the metrics, the verdict with its reasons, the version.

    If the run ended before the gate, print the steps that are done.
    """
    gate = result["gate"]
    if not gate:
        out.print(f"done: {', '.join(result['seconds'])}", soft_wrap=True)
        return
    for title, table in metrics_tables(result).items():
        out.print(title, highlight=False, soft_wrap=True)
        out.print(table)
    out.print(f"gate: {'[green]' if gate['passed'] else '[yellow]'}{VERDICTS[gate['passed']]}")
    for reason in gate["reasons"]:
        out.print(f"  {reason}", markup=False, highlight=False, soft_wrap=True)
    version = result["version"]
    out.print(f"registered version: {version}" if version else "nothing was registered")
    report = Path(result["run"]) / "recall_gate" / REPORT_FILE
    out.print(f"report: {report}", markup=False, highlight=False, soft_wrap=True)


def print_use(uri: str, model: str, version: str, out: Console = console) -> None:
    """Print Python that loads a registered version, ready to paste."""
    lines = (
        "from Python:",
        f"  import mlflow; mlflow.set_tracking_uri({uri!r})",
        f"  model = mlflow.pyfunc.load_model('models:/{model}/{version}')",
    )
    for line in lines:
        out.print(line, markup=False, highlight=False, soft_wrap=True)


def metrics_tables(result: JSON) -> dict[str, Table]:
    """Tables of users and items in the training set and of all traffic, by title: a row a system
    (served index, exact search, baselines, champion, best single list), a column a metric.
    """
    from dssm_core.runs.gate_report import POPULATIONS, GateMetrics

    report = GateMetrics.model_validate(result["metrics"])
    names = report.served.recalls
    names += [f"{name}@{result['gate']['k']}" for name in ("ndcg", "coverage")]
    counts = report.queries.as_json() if report.queries else {}
    tables = {}
    for name, title in POPULATIONS.items():
        sample = f", {report.sample}" if report.sample else ""
        queries = f" ({counts[name]:,} queries{sample})" if name in counts else ""
        table = plain_table("")
        for column in names:
            table.add_column(column, justify="right", no_wrap=True)
        for system, scores in report.systems(name).items():
            table.add_row(system, *(_cell(scores, column) for column in names))
        if table.rows:
            tables[f"test: {result['test_day']}, {title}{queries}"] = table
    return tables


def _cell(scores: Scores, name: str) -> str:
    """A figure; empty where a system has no such figure."""
    return _metric(scores.value(name)) if name in scores.root else ""


def _metric(value: float | None) -> str:
    return "not measured" if value is None or math.isnan(value) else f"{value:.4f}"


def plain_table(*columns: str, **options: Any) -> Table:
    """A table without lines. options: of rich's Table."""
    return Table(*columns, box=None, header_style="bold", **options)


def _minute(at: datetime) -> str:
    return at.astimezone(UTC).strftime("%Y-%m-%d %H:%M UTC")


def print_proposal(proposal: Proposal, file: Path, out: Console = console) -> None:
    """Print what was read, what to check, and the next command."""
    out.print(f"read: {proposal.read}", markup=False, highlight=False, soft_wrap=True)
    if proposal.doubts:
        out.print("check:", highlight=False)
    for doubt in proposal.doubts:
        out.print(f"  {doubt}", markup=False, highlight=False, soft_wrap=True)
    out.print(
        f"wrote {file}. Next: dssm check {file}", markup=False, highlight=False, soft_wrap=True
    )


def print_findings(findings: Findings, metric: str) -> None:
    """Print what a run would find to stdout: its rows, days, training events and baselines, then
    the warnings.
    """
    out = Console()
    for table in findings_tables(findings, metric):
        out.print(table)
        out.print()
    for warning in findings.warnings:
        out.print(f"warning: {warning}", markup=False, highlight=False, soft_wrap=True)
    if not findings.warnings:
        out.print("no warning")


def findings_tables(findings: Findings, metric: str) -> list[Table]:
    """What a run would find: the log, its days, the positives that do not train, and baselines."""
    rows = dict(findings.rows)
    sample = findings.sample
    log = _counts("log", {"rows read": rows.pop("read")} | rows)
    if sample:
        log.add_row(f"a sample: all rows of one in {sample.one_in} users", "")
    for reason, count in findings.quarantined.items():
        log.add_row(f"quarantined: {escape(reason)}", f"{count:,}")
    positives = findings.events + sum(findings.left_out.values())
    training = {
        "users": findings.users,
        "items": findings.items,
        "positives": positives,
        "of these, training events": findings.events,
    }
    left_out = {f"no event: {reason}": count for reason, count in findings.left_out.items()}
    test = _counts("test", {"users asked": findings.all, "of these, warm": findings.warm})
    test.add_row("positives of new users", f"{findings.cold_users:.1%}")
    test.add_row("positives of new items", f"{findings.cold_items:.1%}")
    for name, value in findings.recalls.items():
        test.add_row(f"{metric} of {escape(name)}", _metric(value))
    days = [_counts("day", dict(findings.days))] if findings.days else []
    return [log, *days, _counts("training set", training | left_out), test]


def _counts(title: str, counts: Mapping[str, int]) -> Table:
    table = plain_table(title)
    table.add_column("", justify="right")
    for name, count in counts.items():
        table.add_row(escape(name), f"{count:,}")
    return table
