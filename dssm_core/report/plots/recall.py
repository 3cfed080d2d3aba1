"""Recall: by list length, through the test day, by slice."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from dssm_core.aliases import Doubles
from dssm_core.report.plots.canvas import NORMAL_95, SIZE, PictureFile, figure


def recall_curve(
    curves: Mapping[str, tuple[Doubles, Doubles]], file: PictureFile, mark_k: int = 200
) -> None:
    """Mean recall of the first k positions, k = 1..K: a line for each answerer; mark_k is marked.

    curves: name -> mean and standard error, [K] each; the band is the 95 % interval of the mean.
    The line of the served index is thick, that of exact search is dashed.
    """
    styles: dict[str, dict[str, Any]] = {
        "served": {"linewidth": 2.6},
        "exact": {"linestyle": "--", "color": "black"},
    }
    with figure(file) as axes:
        for name, (curve, error) in curves.items():
            at = min(mark_k, len(curve))
            lengths = np.arange(1, len(curve) + 1)
            label = f"{name}: {curve[at - 1]:.3f}"
            (line,) = axes.plot(lengths, curve, label=label, **styles.get(name, {"linewidth": 1.4}))
            if name != "exact":  # its band would cover that of the served index
                axes.fill_between(
                    lengths,
                    np.maximum(curve - NORMAL_95 * error, 0),
                    np.minimum(curve + NORMAL_95 * error, 1),
                    color=line.get_color(),
                    alpha=0.2,
                    linewidth=0,
                )
        axes.axvline(mark_k, color="grey", linewidth=0.8, linestyle=":")
        axes.set(
            xlabel="k, length of the list",
            ylabel="recall@k, mean over queries",
            title=f"Recall by list length (k = {mark_k})",
        )
        axes.set_xlim(1, None)
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.set_ylim(0, min(1, axes.get_ylim()[1]))
        axes.legend(loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)


def by_hour(
    shares: Mapping[str, Sequence[float | None]], refresh_h: int, file: PictureFile, k: int = 200
) -> None:
    """Recall of the rows between two refreshes, by hours since the test days began: a line for each
    answerer.

    shares: name -> [refreshes], None without rows. The line of the refreshed index is thick, that
    of the daily one is dashed.
    """
    styles: dict[str, dict[str, Any]] = {
        "served": {"linewidth": 2.6},
        "daily": {"linestyle": "--", "color": "black"},
    }
    every = f"every {refresh_h} h"
    labels = {"served": f"index, refreshed {every}", "daily": "index without refreshes"}
    with figure(file) as axes:
        for name, values in shares.items():
            axes.plot(
                refresh_h * np.arange(len(values)),
                np.array(values, dtype=np.float64),
                label=labels.get(name, f"{name}, {every}"),
                **styles.get(name, {"linewidth": 1.4}),
            )
        axes.set(
            xlabel="hours since the start of the test day",
            ylabel=f"recall@{k}, all users and items",
            title="Recall during the test day",
        )
        axes.set_xlim(0, None)
        axes.set_ylim(0, 1)
        axes.legend(loc="lower left", frameon=False)


def intervals(
    rows: Sequence[tuple[str, Sequence[tuple[float, float, float] | None]]],
    names: Sequence[str],
    xlabel: str,
    file: PictureFile,
) -> None:
    """A line for each row, with a dot and its interval for each of `names`.

    rows: the label and, for each name, (value, low, high) or None.
    """
    with figure(file, (SIZE[0], 0.9 + 0.5 * len(rows))) as axes:
        for nth, name in enumerate(names):
            offset = 0.22 * (nth - (len(names) - 1) / 2)
            dots = [
                (line + offset, *values)
                for line, (_, of_names) in enumerate(rows)
                if (values := of_names[nth]) is not None
            ]
            if dots:
                at, value, low, high = np.array(dots).T
                axes.errorbar(
                    value,
                    at,
                    xerr=[value - low, high - value],
                    fmt="o",
                    capsize=3,
                    label=name,
                    color=f"C{nth}",
                )
        axes.set_yticks(range(len(rows)), [label for label, _ in rows])
        axes.set_ylim(len(rows) - 0.5, -0.5)
        axes.set_xlim(0, None)
        axes.set_xlabel(xlabel)
        if len(names) > 1:
            axes.legend(loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)
