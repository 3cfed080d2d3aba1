"""How figures are written for people: shares, intervals, Markdown tables."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

from dssm_core.runs.gate_report import Difference, Interval, Scores

NOT_COMPARABLE = "not comparable"  # of a champion


def share(value: float | None) -> str:
    """Three digits; empty where there is no value."""
    return "" if value is None or math.isnan(value) else f"{value:.3f}"


def figure(value: float | None) -> str:
    """Three digits, or `not measured`."""
    return share(value) or "not measured"


def interval(bounds: Interval | None) -> str:
    """`0.500 to 0.700`; empty where there is no interval."""
    return "" if bounds is None else f"{bounds.low:.3f} to {bounds.high:.3f}"


def share_with_interval(scores: Scores, name: str) -> str:
    """`0.600 (0.500 to 0.700)`; without the interval, or empty, where it was not measured."""
    bounds = interval(scores.interval(name))
    return share(scores.value(name)) + (f" ({bounds})" if bounds else "")


def gain(difference: Difference | None) -> str:
    """A difference with its paired interval: `+0.012 (0.004 to 0.020)`; empty if not measured."""
    if difference is None:
        return ""
    return f"{difference.mean:+.3f} ({difference.low:+.3f} to {difference.high:+.3f})"


def markdown_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table: a line for the head, one for the rule, one for each row.

    Names of a log in a cell are text: HTML, pipes and line breaks are escaped.
    """
    lines = [[_cell(text) for text in cells] for cells in (head, *rows)]
    lines.insert(1, ["---"] * len(head))
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _cell(text: str) -> str:
    return " ".join(escape(text, quote=False).replace("|", "\\|").split("\n"))
