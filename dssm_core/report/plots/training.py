"""Training, negatives and their calibration."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from dssm_core.aliases import Doubles
from dssm_core.report.plots.canvas import NORMAL_95, WIDE, PictureFile, figure

PHASES = {
    "select": ("choosing the epochs", "tab:blue"),
    "refit": ("on all training days", "tab:green"),
}
SPIKE = 10  # times the median loss, from which a linear axis would flatten the rest


def loss_curve(history: Sequence[Mapping[str, Any]], file: PictureFile) -> None:
    """Training loss (left axis, a line for each phase) and validation metric (right axis) by step.

    history: the points of the trainer. The axis of the loss is logarithmic where the loss spikes.
    """
    with figure(file) as axes:
        for phase, (label, color) in PHASES.items():
            points = [point for point in history if point.get("phase", "select") == phase]
            _line(axes, points, "train_loss", color=color, label=f"train loss, {label}")
        axes.set(xlabel="step", ylabel="train loss", title="Training")
        losses = [point["train_loss"] for point in history if point.get("train_loss") is not None]
        if losses and min(losses) > 0 and max(losses) > SPIKE * np.median(losses):
            axes.set_yscale("log")
        keys = sorted({key for point in history for key in point if key.startswith("valid_")})
        right = axes.twinx() if keys else None
        for key in keys:
            _line(
                right,
                history,
                key,
                color="tab:orange",
                marker="o",
                markersize=4,
                label=key.replace("_", " "),
            )
        if right is not None:
            right.set_ylabel("validation")
            right.set_ylim(0, 1.15 * right.get_ylim()[1])
            right.spines["top"].set_visible(False)
        handles = [
            handle for part in (axes, right) if part is not None for handle in part.get_lines()
        ]
        axes.legend(handles=handles, loc="upper right", frameon=False)


def _line(axes: Any, history: Sequence[Mapping[str, Any]], key: str, **style: Any) -> None:
    points = [(point["step"], point[key]) for point in history if point.get(key) is not None]
    if points:
        axes.plot(*zip(*points, strict=True), **style)


def sampling(probabilities: Doubles, clicks: Doubles, file: PictureFile) -> None:
    """How often items are drawn as negatives, and clicked in the training set; both axes are log.

    probabilities, clicks: [N], each summing to 1; items are ordered by clicks.
    """
    order = np.argsort(-clicks, kind="stable")
    ranks = np.arange(1, len(order) + 1)
    with figure(file) as axes:
        axes.plot(
            ranks, probabilities[order], ".", markersize=2, alpha=0.5, label="drawn as a negative"
        )
        axes.plot(
            ranks,
            np.where(clicks[order] > 0, clicks[order], np.nan),
            color="black",
            linewidth=1.4,
            label="clicked in the training set",
        )
        axes.set(
            xscale="log",
            yscale="log",
            xlabel="rank of the item by clicks",
            ylabel="share",
            title="Negatives and clicks",
        )
        axes.legend(loc="lower left", frameon=False, markerscale=5)


def calibration(planned: Doubles, drawn: Doubles, draws: int, file: PictureFile) -> None:
    """Share of the draws against planned probability: a dot for each item; both axes are log.

    The band holds 95 % of what chance gives; items that were never drawn lie at the bottom.
    planned, drawn: [n]; draws: number of draws.
    """
    with figure(file, WIDE) as axes:
        line = np.geomspace(
            max(planned[planned > 0].min(), 1e-12) / 1.5, min(planned.max() * 1.5, 1), 200
        )
        spread = NORMAL_95 * np.sqrt(line * (1 - line) / draws)
        foot = 0.5 / draws
        axes.fill_between(
            line,
            np.maximum(line - spread, foot),
            line + spread,
            color="silver",
            alpha=0.5,
            linewidth=0,
            label="95 % band of chance",
        )
        axes.plot(planned, np.maximum(drawn, foot), ".", markersize=3, alpha=0.5, label="an item")
        axes.plot(line, line, color="black", linewidth=1, label="as planned")
        axes.set(
            xscale="log",
            yscale="log",
            xlabel="planned probability of a draw",
            ylabel=f"share of {draws:,} draws",
        )
        axes.legend(loc="upper left", frameon=False, markerscale=3)
