"""Pictures for the MLflow run and for docs/benchmarks.md, as PNG files."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import numpy.typing as npt

matplotlib.use("Agg")
import matplotlib.pyplot as plt

Doubles = npt.NDArray[np.float64]
SIZE = (8.0, 4.8)


def recall_curve(curves: Mapping[str, Doubles], file: Path, mark_k: int = 200) -> None:
    """Mean recall of the first k places, k = 1..K, one line for each who answered; the gate's k is marked.

    curves: name -> [K]. The served index is drawn boldly, exact search dashed over it, baselines thinly.
    """
    styles: dict[str, dict[str, Any]] = {"served": {"linewidth": 2.6}, "exact": {"linestyle": "--", "color": "black"}}
    with _figure(file) as axes:
        for name, curve in curves.items():
            at = min(mark_k, len(curve))
            label = f"{name}: {curve[at - 1]:.3f}"
            axes.plot(np.arange(1, len(curve) + 1), curve, label=label, **styles.get(name, {"linewidth": 1.4}))
        axes.axvline(mark_k, color="grey", linewidth=0.8, linestyle=":")
        axes.set(xlabel="k, places shown", ylabel="recall@k, mean over warm users", title=f"Recall by list length (k = {mark_k})")
        axes.set_xlim(1, None)
        axes.set_ylim(0, None)
        axes.legend(loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)


def by_hour(shares: Mapping[str, Sequence[float | None]], refresh_h: int, file: Path, k: int = 200) -> None:
    """Recall of the rows between two refreshes, one line for each who answered, by hours since the test days began.

    shares: name -> [refreshes], None where there was nothing to find. The refreshed index is drawn boldly, the daily one dashed.
    """
    styles: dict[str, dict[str, Any]] = {"served": {"linewidth": 2.6}, "daily": {"linestyle": "--", "color": "black"}}
    every = f"every {refresh_h} h"
    labels = {"served": f"index, refreshed {every}", "daily": "the same index, not refreshed"}
    with _figure(file) as axes:
        for name, values in shares.items():
            hours, told = refresh_h * np.arange(len(values)), np.array(values, dtype=np.float64)
            axes.plot(hours, told, label=labels.get(name, f"{name}, {every}"), **styles.get(name, {"linewidth": 1.4}))
        axes.set(xlabel="hours since the test day began", ylabel=f"recall@{k}, all users and items", title="Recall through the test day")
        axes.set_xlim(0, None)
        axes.set_ylim(0, 1)
        axes.legend(loc="lower left", frameon=False)


def trials(found: Sequence[Mapping[str, Any]], file: Path) -> None:
    """A sweep's trials, best first: recall of the served index with its interval, beside the seconds that training took.

    found: as sweep.results gives them.
    """
    key = next(name for name in found[0] if name.startswith("recall@"))
    with _figure(file) as axes:
        for row in found:
            spread = None if row["low"] is None else [[row[key] - row["low"]], [row["high"] - row[key]]]
            axes.errorbar([row["train_seconds"]], [row[key]], yerr=spread, fmt="o", capsize=3, label=f"{row['label']}: {row[key]:.3f}")
        axes.set(xlabel="training, s", ylabel=f"{key} of the served index", title="Trials, on the last train day")
        axes.legend(loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)


def loss_curve(history: Sequence[Mapping[str, Any]], file: Path) -> None:
    """Training loss (left axis) and validation metric (right axis) by step, from the trainer's history."""
    with _figure(file) as axes:
        _line(axes, history, "train_loss", color="tab:blue", label="train loss")
        axes.set(xlabel="step", ylabel="train loss", title="Training")
        if refit := next((point["step"] for point in history if point.get("phase") == "refit"), None):
            axes.axvline(refit, color="grey", linewidth=0.8, linestyle=":", label="anew, on all days")
        keys = sorted({key for point in history for key in point if key.startswith("valid_")})
        right = axes.twinx() if keys else None
        for key in keys:
            _line(right, history, key, color="tab:orange", marker="o", markersize=4, label=key.replace("_", " "))
        if right is not None:
            right.set_ylabel("validation")
            right.set_ylim(0, 1.15 * right.get_ylim()[1])
            right.spines["top"].set_visible(False)
        handles = [handle for part in (axes, right) if part is not None for handle in part.get_lines()]
        axes.legend(handles=handles, loc="upper right", frameon=False)


def sampling(probabilities: Doubles, clicks: Doubles, file: Path) -> None:
    """How often an item is drawn as a negative against how often it is clicked in train, items by clicks (both axes log).

    probabilities, clicks: [N], each summing to 1.
    """
    order = np.argsort(-clicks, kind="stable")
    places = np.arange(1, len(order) + 1)
    with _figure(file) as axes:
        axes.plot(places, probabilities[order], ".", markersize=2, alpha=0.5, label="drawn as a negative")
        axes.plot(places, np.where(clicks[order] > 0, clicks[order], np.nan), color="black", linewidth=1.4, label="clicked in train")
        axes.set(xscale="log", yscale="log", xlabel="item, by its clicks", ylabel="share", title="Negatives against clicks")
        axes.legend(loc="lower left", frameon=False, markerscale=5)


@dataclass(frozen=True)
class Bar:
    """A system's figure: mean and standard deviation over seeds, what others have published of it, whether it is ours."""

    label: str
    mean: float | None
    spread: float
    published: float | None
    ours: bool


@dataclass(frozen=True)
class Panel:
    """One table's bars, best read from the top."""

    title: str
    figure: str
    bars: Sequence[Bar]


def bars(panels: Sequence[Panel], file: Path) -> None:
    """Horizontal bars, a panel under the other: whiskers are the spread, diamonds published figures, ours are coloured."""
    rows = [max(len(panel.bars), 1) for panel in panels]
    size = (SIZE[0], 0.9 * len(panels) + 0.26 * sum(rows) + 0.5)
    figure, grid = plt.subplots(len(panels), 1, figsize=size, layout="constrained", squeeze=False, height_ratios=rows)
    try:
        for axes, panel in zip(grid[:, 0], panels, strict=True):
            _bars(axes, panel)
        figure.savefig(file, dpi=120)
    finally:
        plt.close(figure)


def _bars(axes: Any, panel: Panel) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="x", alpha=0.25)
    axes.set_axisbelow(True)
    widest = max((max(bar.mean or 0.0, bar.published or 0.0) for bar in panel.bars), default=1.0)
    for place, bar in enumerate(panel.bars):
        if bar.mean is not None:
            axes.barh(place, bar.mean, xerr=bar.spread or None, color="tab:blue" if bar.ours else "silver", height=0.7, capsize=3)
            inside = bar.mean > 0.12 * widest  # at the foot of the bar, away from whisker and published mark
            color = "white" if inside and bar.ours else "black"
            at = 0.0 if inside else bar.mean + bar.spread
            axes.annotate(f"{bar.mean:.3f}", (at, place), (5, 0), textcoords="offset points", va="center", fontsize=8, color=color)
        if bar.published is not None:
            axes.plot(bar.published, place, "D", color="tab:orange", markersize=6, markeredgecolor="white")
    axes.set_yticks(range(len(panel.bars)), [bar.label for bar in panel.bars])
    axes.set_title(textwrap.fill(panel.title, 50), loc="left")
    note = "   (diamonds: published)" if any(bar.published is not None for bar in panel.bars) else ""
    axes.set(xlabel=panel.figure + note, ylim=(max(len(panel.bars), 1) - 0.5, -0.5))
    axes.set_xlim(0, 1.1 * axes.get_xlim()[1])


def _line(axes: Any, history: Sequence[Mapping[str, Any]], key: str, **style: Any) -> None:
    points = [(point["step"], point[key]) for point in history if point.get(key) is not None]
    if points:
        axes.plot(*zip(*points, strict=True), **style)


@contextmanager
def _figure(file: Path) -> Iterator[Any]:
    figure, axes = plt.subplots(figsize=SIZE, layout="constrained")
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25)
    try:
        yield axes
        figure.savefig(file, dpi=120)
    finally:
        plt.close(figure)
