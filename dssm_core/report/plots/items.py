"""Items, scores and the index."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from dssm_core.aliases import Doubles
from dssm_core.report.plots.canvas import WIDE, PictureFile, figure, label_of

COLOURED = 9  # texts with a colour of their own; the rest is grey


def histograms(values: Mapping[str, Doubles], xlabel: str, file: PictureFile) -> None:
    """Distributions on one axis, each scaled to the same height. values: name -> [n]."""
    with figure(file, WIDE) as axes:
        joined = np.concatenate([*values.values()])
        bins = np.linspace(joined.min(), joined.max() + 1e-9, 61)
        for name, sample in values.items():
            counts = np.histogram(sample, bins)[0]
            axes.stairs(
                counts / max(counts.max(), 1),
                bins,
                fill=True,
                alpha=0.4,
                label=f"{name}: mean {sample.mean():.2f}",
            )
        axes.set(xlabel=xlabel, ylabel="frequency, scaled to the same height")
        axes.set_yticks([])
        axes.set_ylim(0, 1.4)
        axes.legend(loc="upper left", frameon=False)


def frontier(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """The points (time, recall) with more recall than any point that takes at most their time, by
    time.
    """
    best: list[tuple[float, float]] = []
    for ms, recall in sorted(points, key=lambda point: (point[0], -point[1])):
        if not best or recall > best[-1][1]:
            best.append((ms, recall))
    return best


def tradeoff(points: Sequence[tuple[str, float, float, bool]], file: PictureFile) -> None:
    """Recall of an index against its time, by search effort.

    points: label, recall, ms per query, whether it is the served index.
    """
    with figure(file, WIDE) as axes:
        best = frontier([(ms, recall) for _, recall, ms, _ in points])
        axes.plot(
            *zip(*best, strict=True),
            drawstyle="steps-post",
            color="silver",
            linewidth=1.2,
            label="best recall up to a time",
        )
        others = [(ms, recall) for _, recall, ms, served in points if not served]
        if others:
            axes.plot(
                *zip(*others, strict=True),
                "o",
                color="tab:grey",
                markersize=5,
                label="other search efforts",
            )
        labelled = -1.0  # recall of the last label: labels must not overlap
        for label, recall, ms, served in sorted(points, key=lambda point: point[1]):
            if served:
                axes.plot(
                    ms,
                    recall,
                    "o",
                    color="tab:blue",
                    markersize=10,
                    clip_on=False,
                    label=f"served: {label}",
                )
            elif recall - labelled > 0.03:
                axes.annotate(
                    label,
                    (ms, recall),
                    (8, -3),
                    textcoords="offset points",
                    fontsize=8,
                    color="dimgrey",
                    va="top",
                )
                labelled = recall
        axes.set(xlabel="ms per query, in a batch", ylabel="recall against exact search")
        axes.set_xlim(0, 1.15 * axes.get_xlim()[1])
        axes.set_ylim(min(0.9, axes.get_ylim()[0]), 1.01)
        axes.legend(loc="lower right", frameon=False)


def plane(positions: Doubles, colours: npt.NDArray[Any], name: str, file: PictureFile) -> None:
    """Dots [n, 2] on a plane, coloured by the most frequent texts or by a number on a log scale.

    colours: [n].
    """
    with figure(file, WIDE) as axes:
        axes.grid(visible=False)
        axes.set(xticks=[], yticks=[], xlabel="first principal component", ylabel="second")
        if colours.dtype.kind == "f":
            dots = axes.scatter(
                *positions.T,
                c=np.maximum(colours, 0.1),
                s=6,
                norm="log",
                cmap="viridis_r",
                linewidths=0,
            )
            axes.figure.colorbar(dots, ax=axes, label=name)
            return
        names, codes, counts = np.unique(colours, return_inverse=True, return_counts=True)
        common = np.argsort(-counts, kind="stable")[:COLOURED]
        rest = ~np.isin(codes, common)
        if rest.any():
            axes.scatter(
                *positions[rest].T,
                s=5,
                color="lightgrey",
                linewidths=0,
                label=f"{len(names) - len(common)} others ({rest.sum():,})",
            )
        for nth, code in enumerate(common):
            axes.scatter(
                *positions[codes == code].T,
                s=7,
                color=f"C{nth}",
                linewidths=0,
                label=f"{label_of(names[code])} ({counts[code]:,})",
            )
        axes.legend(
            loc="center left",
            bbox_to_anchor=(1, 0.5),
            frameon=False,
            markerscale=3,
            title=label_of(name),
        )
