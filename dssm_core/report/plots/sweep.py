"""The trials of a sweep."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np

from dssm_core.aliases import Doubles
from dssm_core.report.plots.canvas import figure, label_of, panels

LISTED = 20  # trials in the legend


def trials(found: Sequence[Mapping[str, Any]], file: Path) -> None:
    """Recall of the served index with its interval, against training time and time per query.

    found: the finished trials as sweep.results returns them; number 1 is the best.
    """
    with panels(file, 1, 2, (11.0, 4.8), sharey=True) as grid:
        left, right = grid[0]
        for nth, row in enumerate(found, 1):
            for axes, key in ((left, "train_seconds"), (right, "ms_per_query")):
                _trial(axes, key, nth, row)
        left.set(
            xlabel="training time, s",
            xlim=(0, None),
            ylabel=f"{found[0]['metric']} of the served index",
        )
        right.set(xlabel="time per query, ms", xlim=(0, None))
        right.legend(loc="center left", bbox_to_anchor=(1, 0.5), frameon=False, fontsize=8)
        left.set_title("Trials on the last training days, with 95 % intervals", loc="left")


def _trial(axes: Any, key: str, nth: int, row: Mapping[str, Any]) -> None:
    if row[key] is None:
        return
    spread = (
        None
        if row["low"] is None
        else [[row["recall"] - row["low"]], [row["high"] - row["recall"]]]
    )
    axes.errorbar(
        row[key],
        row["recall"],
        yerr=spread,
        fmt="o",
        capsize=3,
        color=f"C{(nth - 1) % 10}",
        label=_legend(nth, row),
    )
    axes.annotate(
        str(nth), (row[key], row["recall"]), xytext=(5, 4), textcoords="offset points", fontsize=8
    )


def _legend(nth: int, row: Mapping[str, Any]) -> str | None:
    """The text of a trial in the legend, which lists the best trials only."""
    return (
        textwrap.fill(f"{nth}  {row['label']}: {row['recall']:.3f}", 48, subsequent_indent="    ")
        if nth <= LISTED
        else None
    )


def parallel(found: Sequence[Mapping[str, Any]], file: Path) -> None:
    """The trials as lines over the axes of the sweep, coloured by recall: parallel coordinates
    (Inselberg, 1985).

    found: the finished trials as sweep.results returns them. Values that are not numbers are
    ordered by their best trial.
    """
    names = list(found[0]["chosen"])
    scales = [_scale([row["chosen"][name] for row in found]) for name in names]
    recalls = np.array([row["recall"] for row in found])
    scales.append(_scale(recalls.tolist()))
    colors = plt.get_cmap("viridis")(scales[-1].at)
    with figure(file, (max(6.0, 2.2 * len(scales)), 4.8)) as axes:
        for nth in range(len(found) - 1, -1, -1):  # the best on top
            axes.plot(
                [scale.at[nth] for scale in scales],
                color=colors[nth],
                linewidth=3.0 if nth == 0 else 1.4,
                alpha=0.9,
            )
        for nth, scale in enumerate(scales):
            axes.axvline(nth, color="black", linewidth=0.8)
            for at, label in scale.ticks:
                axes.annotate(
                    label_of(label),
                    (nth, at),
                    xytext=(4, 3),
                    textcoords="offset points",
                    fontsize=8,
                )
        axes.set(
            title="Trials by setting; the thick line is the best",
            xlim=(-0.1, len(scales) - 0.6),
            ylim=(-0.05, 1.1),
            yticks=[],
        )
        axes.set_xticks(range(len(scales)), [*map(label_of, names), found[0]["metric"]])
        axes.spines[:].set_visible(False)
        axes.grid(visible=False)


@dataclass(frozen=True)
class _Scale:
    """Positions of values on an axis, 0 to 1, and the labels beside the axis."""

    at: Doubles
    ticks: list[tuple[float, str]]


def _scale(values: Sequence[Any]) -> _Scale:
    if all(isinstance(value, int | float) and not isinstance(value, bool) for value in values):
        numbers = np.array(values, dtype=np.float64)
        low, high = float(numbers.min()), float(numbers.max())
        at = (numbers - low) / (high - low) if high > low else np.full(len(numbers), 0.5)
        return _Scale(
            at, [(0.0, f"{low:.4g}"), (1.0, f"{high:.4g}")] if high > low else [(0.5, f"{low:.4g}")]
        )
    names = list(dict.fromkeys(map(str, values)))
    rows = np.array([names.index(str(value)) for value in values])
    at = 1 - rows / (len(names) - 1) if len(names) > 1 else np.full(len(rows), 0.5)
    return _Scale(at, [(float(at[rows == row][0]), name) for row, name in enumerate(names)])
