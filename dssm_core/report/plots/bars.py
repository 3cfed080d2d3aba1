"""Bars with published figures, for docs/benchmarks.md."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dssm_core.report.plots.canvas import SIZE, panels


@dataclass(frozen=True)
class Bar:
    """The figure of a system: mean and standard deviation over seeds, and the published figure.

    ours: whether it is a system of this project.
    """

    label: str
    mean: float | None
    spread: float
    published: float | None
    ours: bool


@dataclass(frozen=True)
class Panel:
    """The bars of one table, from top to bottom."""

    title: str
    figure: str
    bars: Sequence[Bar]


def bars(tables: Sequence[Panel], file: Path) -> None:
    """Horizontal bars, one panel below the other.

    Whiskers are standard deviations, diamonds are published figures, bars of this project are
    coloured.
    """
    rows = [max(len(panel.bars), 1) for panel in tables]
    size = (SIZE[0], 0.9 * len(tables) + 0.26 * sum(rows) + 0.5)
    with panels(file, len(tables), 1, size, height_ratios=rows) as grid:
        for axes, panel in zip(grid[:, 0], tables, strict=True):
            _bars(axes, panel)


def _bars(axes: Any, panel: Panel) -> None:
    axes.grid(visible=False, axis="y")
    axes.set_axisbelow(True)
    widest = max((max(bar.mean or 0.0, bar.published or 0.0) for bar in panel.bars), default=1.0)
    for line, bar in enumerate(panel.bars):
        if bar.mean is not None:
            axes.barh(
                line,
                bar.mean,
                xerr=bar.spread or None,
                color="tab:blue" if bar.ours else "silver",
                height=0.7,
                capsize=3,
            )
            # the text is at the start of the bar, away from the whisker and the diamond
            inside = bar.mean > 0.12 * widest
            color = "white" if inside and bar.ours else "black"
            at = 0.0 if inside else bar.mean + bar.spread
            axes.annotate(
                f"{bar.mean:.3f}",
                (at, line),
                (5, 0),
                textcoords="offset points",
                va="center",
                fontsize=8,
                color=color,
            )
        if bar.published is not None:
            axes.plot(
                bar.published, line, "D", color="tab:orange", markersize=6, markeredgecolor="white"
            )
    axes.set_yticks(range(len(panel.bars)), [bar.label for bar in panel.bars])
    axes.set_title(textwrap.fill(panel.title, 50), loc="left")
    note = (
        "   (diamonds: published)" if any(bar.published is not None for bar in panel.bars) else ""
    )
    axes.set(xlabel=panel.figure + note, ylim=(max(len(panel.bars), 1) - 0.5, -0.5))
    axes.set_xlim(0, 1.1 * axes.get_xlim()[1])
