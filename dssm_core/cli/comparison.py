"""The tables of `dssm runs --compare`: in which settings and numbers two runs differ."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich.markup import escape

from dssm_core.cli.screen import plain_table

if TYPE_CHECKING:
    from rich.table import Table

    from dssm_core.runs.run import Run


def comparison_tables(one: Run, other: Run) -> list[Table]:
    """The settings that differ, and the headline numbers of both runs with their differences."""
    names = (f"{run.config.split.title} {run.id}" for run in (one, other))
    titles = [escape(name) for name in names]
    return [_settings(one, other, titles), _numbers(one, other, titles)]


def _settings(one: Run, other: Run, titles: list[str]) -> Table:
    from dssm_core.tracking.runs import flatten

    table = plain_table("setting", *titles)
    left, right = (flatten(run.config.deciding()) for run in (one, other))
    for key in sorted(left.keys() | right.keys()):
        if left.get(key) != right.get(key):
            table.add_row(key, *(escape(str(side.get(key, ""))) for side in (left, right)))
    if not table.rows:
        table.add_row("all settings are equal")
    return table


def _numbers(one: Run, other: Run, titles: list[str]) -> Table:
    table = plain_table("number", *titles, "change")
    left, right = _headline(one), _headline(other)
    for key in left | right:
        before, after = left.get(key), right.get(key)
        if before == after:
            continue
        change = "" if before is None or after is None else f"{after - before:+.4g}"
        cells = ("" if value is None else f"{value:.4g}" for value in (before, after))
        table.add_row(key, *cells, change)
    if not table.rows:
        both = left and right
        table.add_row("all numbers are equal" if both else "neither run has reached the gate")
    if left and right and _test_rows(one) != _test_rows(other):
        table.caption = "not comparable: the runs were judged on different test rows"
    return table


def _test_rows(run: Run) -> str:
    """The hash of the test rows of a run that has reached the gate."""
    from dssm_core.runs.layout import TEST_FILE

    return run.need("split_by_time").files[TEST_FILE]


def _headline(run: Run) -> dict[str, Any]:
    """The headline numbers of a run without their prefix; empty before the gate."""
    from dssm_core.report.headline import PREFIX, headline
    from dssm_core.runs.gate_report import find_gate_report

    report = find_gate_report(run)
    numbers = headline(run, report) if report else {}
    return {key.removeprefix(PREFIX): value for key, value in numbers.items()}
