"""Pictures for the MLflow run and for docs/benchmarks.md, as PNG files."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import matplotlib
import numpy as np
import numpy.typing as npt

from dssm_core.aliases import Doubles

matplotlib.use("Agg")
import matplotlib.pyplot as plt

SIZE = (8.0, 4.8)
WIDE = (8.0, 4.2)
NORMAL_95 = 1.96  # standard errors of a normal mean that its 95 % interval reaches to either side
LISTED = 20  # trials that a legend has room for
File = Path | BinaryIO


def recall_curve(
    curves: Mapping[str, tuple[Doubles, Doubles]], file: File, mark_k: int = 200
) -> None:
    """Mean recall of the first k places, k = 1..K, one line for each who answered; the gate's k is
    marked.

    curves: name -> mean and standard error, [K] each; the band is the 95 % interval of the mean.
    The served index is drawn boldly, exact search dashed over it, baselines thinly.
    """
    styles: dict[str, dict[str, Any]] = {
        "served": {"linewidth": 2.6},
        "exact": {"linestyle": "--", "color": "black"},
    }
    with _figure(file) as axes:
        for name, (curve, error) in curves.items():
            at, places = min(mark_k, len(curve)), np.arange(1, len(curve) + 1)
            label = f"{name}: {curve[at - 1]:.3f}"
            (line,) = axes.plot(places, curve, label=label, **styles.get(name, {"linewidth": 1.4}))
            if name != "exact":  # it lies on the served one
                axes.fill_between(
                    places,
                    curve - NORMAL_95 * error,
                    curve + NORMAL_95 * error,
                    color=line.get_color(),
                    alpha=0.2,
                    linewidth=0,
                )
        axes.axvline(mark_k, color="grey", linewidth=0.8, linestyle=":")
        axes.set(
            xlabel="k, places shown",
            ylabel="recall@k, mean over warm users",
            title=f"Recall by list length (k = {mark_k})",
        )
        axes.set_xlim(1, None)
        axes.set_ylim(0, None)
        axes.legend(loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)


def by_hour(
    shares: Mapping[str, Sequence[float | None]], refresh_h: int, file: Path, k: int = 200
) -> None:
    """Recall of the rows between two refreshes, one line for each who answered, by hours since the
    test days began.

    shares: name -> [refreshes], None where there was nothing to find. The refreshed index is drawn
    boldly, the daily one dashed.
    """
    styles: dict[str, dict[str, Any]] = {
        "served": {"linewidth": 2.6},
        "daily": {"linestyle": "--", "color": "black"},
    }
    every = f"every {refresh_h} h"
    labels = {"served": f"index, refreshed {every}", "daily": "the same index, not refreshed"}
    with _figure(file) as axes:
        for name, values in shares.items():
            hours, told = refresh_h * np.arange(len(values)), np.array(values, dtype=np.float64)
            axes.plot(
                hours,
                told,
                label=labels.get(name, f"{name}, {every}"),
                **styles.get(name, {"linewidth": 1.4}),
            )
        axes.set(
            xlabel="hours since the test day began",
            ylabel=f"recall@{k}, all users and items",
            title="Recall through the test day",
        )
        axes.set_xlim(0, None)
        axes.set_ylim(0, 1)
        axes.legend(loc="lower left", frameon=False)


def trials(found: Sequence[Mapping[str, Any]], file: Path) -> None:
    """A sweep's trials: recall of the served index with its interval, against the seconds of
    training and the milliseconds of a query.

    found: as sweep.results gives them, those that came to their end; numbered from the best on.
    """
    with _panels(file, 1, 2, (11.0, 4.8), sharey=True) as grid:
        left, right = grid[0]
        for nth, row in enumerate(found, 1):
            for axes, key in ((left, "train_seconds"), (right, "ms_per_query")):
                _trial(axes, key, nth, row)
        left.set(
            xlabel="training, s", xlim=(0, None), ylabel=f"{found[0]['metric']} of the served index"
        )
        right.set(xlabel="a query of the index, ms", xlim=(0, None))
        right.legend(loc="center left", bbox_to_anchor=(1, 0.5), frameon=False, fontsize=8)
        left.set_title("Trials, on the last train days, with 95 % intervals", loc="left")


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
    """A trial's line in the legend, which lists the best alone."""
    return (
        textwrap.fill(f"{nth}  {row['label']}: {row['recall']:.3f}", 48, subsequent_indent="    ")
        if nth <= LISTED
        else None
    )


def parallel(found: Sequence[Mapping[str, Any]], file: Path) -> None:
    """A sweep's trials as lines over its axes, coloured by recall: parallel coordinates (Inselberg,
    1985).

    found: as sweep.results gives them, those that came to their end. Values that are not numbers
    stand in the order of the best.
    """
    names = list(found[0]["chosen"])
    places = [_places([row["chosen"][name] for row in found]) for name in names]
    recalls = np.array([row["recall"] for row in found])
    places.append(_places(recalls.tolist()))
    colors = plt.get_cmap("viridis")(places[-1].at)
    with _figure(file, (max(6.0, 2.2 * len(places)), 4.8)) as axes:
        for nth in range(len(found) - 1, -1, -1):  # the best on top
            axes.plot(
                [place.at[nth] for place in places],
                color=colors[nth],
                linewidth=3.0 if nth == 0 else 1.4,
                alpha=0.9,
            )
        for nth, place in enumerate(places):
            axes.axvline(nth, color="black", linewidth=0.8)
            for at, label in place.ticks:
                axes.annotate(
                    _cut(label), (nth, at), xytext=(4, 3), textcoords="offset points", fontsize=8
                )
        axes.set(
            title="Trials by what was chosen, the best thick",
            xlim=(-0.1, len(places) - 0.6),
            ylim=(-0.05, 1.1),
            yticks=[],
        )
        axes.set_xticks(range(len(places)), [*map(_cut, names), found[0]["metric"]])
        axes.spines[:].set_visible(False)
        axes.grid(visible=False)


@dataclass(frozen=True)
class _Places:
    """Where values stand on an axis, 0 to 1, and what is written beside it."""

    at: Doubles
    ticks: list[tuple[float, str]]


def _places(values: Sequence[Any]) -> _Places:
    if all(isinstance(value, int | float) and not isinstance(value, bool) for value in values):
        numbers = np.array(values, dtype=np.float64)
        low, high = float(numbers.min()), float(numbers.max())
        at = (numbers - low) / (high - low) if high > low else np.full(len(numbers), 0.5)
        return _Places(
            at, [(0.0, f"{low:.4g}"), (1.0, f"{high:.4g}")] if high > low else [(0.5, f"{low:.4g}")]
        )
    names = list(dict.fromkeys(map(str, values)))
    rows = np.array([names.index(str(value)) for value in values])
    at = 1 - rows / (len(names) - 1) if len(names) > 1 else np.full(len(rows), 0.5)
    return _Places(at, [(float(at[rows == row][0]), name) for row, name in enumerate(names)])


def loss_curve(history: Sequence[Mapping[str, Any]], file: File) -> None:
    """Training loss (left axis) and validation metric (right axis) by step, from the trainer's
    history.
    """
    with _figure(file) as axes:
        _line(axes, history, "train_loss", color="tab:blue", label="train loss")
        axes.set(xlabel="step", ylabel="train loss", title="Training")
        if refit := next(
            (point["step"] for point in history if point.get("phase") == "refit"), None
        ):
            axes.axvline(
                refit, color="grey", linewidth=0.8, linestyle=":", label="anew, on all days"
            )
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


def sampling(probabilities: Doubles, clicks: Doubles, file: File) -> None:
    """How often an item is drawn as a negative against how often it is clicked in train, items by
    clicks (both axes log).

    probabilities, clicks: [N], each summing to 1.
    """
    order = np.argsort(-clicks, kind="stable")
    places = np.arange(1, len(order) + 1)
    with _figure(file) as axes:
        axes.plot(
            places, probabilities[order], ".", markersize=2, alpha=0.5, label="drawn as a negative"
        )
        axes.plot(
            places,
            np.where(clicks[order] > 0, clicks[order], np.nan),
            color="black",
            linewidth=1.4,
            label="clicked in train",
        )
        axes.set(
            xscale="log",
            yscale="log",
            xlabel="item, by its clicks",
            ylabel="share",
            title="Negatives against clicks",
        )
        axes.legend(loc="lower left", frameon=False, markerscale=5)


@dataclass(frozen=True)
class Bar:
    """A system's figure: mean and standard deviation over seeds, what others have published of it,
    whether it is ours.
    """

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
    """Horizontal bars, a panel under the other: whiskers are the spread, diamonds published
    figures, ours are coloured.
    """
    rows = [max(len(panel.bars), 1) for panel in panels]
    size = (SIZE[0], 0.9 * len(panels) + 0.26 * sum(rows) + 0.5)
    with _panels(file, len(panels), 1, size, height_ratios=rows) as grid:
        for axes, panel in zip(grid[:, 0], panels, strict=True):
            _bars(axes, panel)


def _bars(axes: Any, panel: Panel) -> None:
    axes.grid(visible=False, axis="y")
    axes.set_axisbelow(True)
    widest = max((max(bar.mean or 0.0, bar.published or 0.0) for bar in panel.bars), default=1.0)
    for place, bar in enumerate(panel.bars):
        if bar.mean is not None:
            axes.barh(
                place,
                bar.mean,
                xerr=bar.spread or None,
                color="tab:blue" if bar.ours else "silver",
                height=0.7,
                capsize=3,
            )
            inside = (
                bar.mean > 0.12 * widest
            )  # at the foot of the bar, away from whisker and published mark
            color = "white" if inside and bar.ours else "black"
            at = 0.0 if inside else bar.mean + bar.spread
            axes.annotate(
                f"{bar.mean:.3f}",
                (at, place),
                (5, 0),
                textcoords="offset points",
                va="center",
                fontsize=8,
                color=color,
            )
        if bar.published is not None:
            axes.plot(
                bar.published, place, "D", color="tab:orange", markersize=6, markeredgecolor="white"
            )
    axes.set_yticks(range(len(panel.bars)), [bar.label for bar in panel.bars])
    axes.set_title(textwrap.fill(panel.title, 50), loc="left")
    note = (
        "   (diamonds: published)" if any(bar.published is not None for bar in panel.bars) else ""
    )
    axes.set(xlabel=panel.figure + note, ylim=(max(len(panel.bars), 1) - 0.5, -0.5))
    axes.set_xlim(0, 1.1 * axes.get_xlim()[1])


def calibration(planned: Doubles, drawn: Doubles, draws: int, file: File) -> None:
    """Share of the draws against planned probability, an item a dot (both axes log), with the 95 %
    band of chance; undrawn ones below.

    planned, drawn: [n]; draws: how many were made.
    """
    with _figure(file, WIDE) as axes:
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
            label="95 % of chance",
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


def histograms(values: Mapping[str, Doubles], xlabel: str, file: File) -> None:
    """Distributions over each other, each as high as the others. values: name -> [n]."""
    with _figure(file, WIDE) as axes:
        everything = np.concatenate([*values.values()])
        bins = np.linspace(everything.min(), everything.max() + 1e-9, 61)
        for name, each in values.items():
            counts = np.histogram(each, bins)[0]
            axes.stairs(
                counts / max(counts.max(), 1),
                bins,
                fill=True,
                alpha=0.4,
                label=f"{name}: mean {each.mean():.2f}",
            )
        axes.set(xlabel=xlabel, ylabel="how many, each to its own scale")
        axes.set_yticks([])
        axes.set_ylim(0, 1.4)
        axes.legend(loc="upper left", frameon=False)


def tradeoff(points: Sequence[tuple[str, float, float, bool]], file: File) -> None:
    """Recall of an index against its time, by effort of searching. points: label, recall, ms a
    query, whether it is the served one.
    """
    with _figure(file, WIDE) as axes:
        others = sorted(
            ((ms, recall) for _, recall, ms, served in points if not served),
            key=lambda point: point[1],
        )
        if others:
            axes.plot(
                *zip(*others, strict=True),
                ".-",
                color="tab:grey",
                markersize=8,
                linewidth=1,
                label="other efforts",
            )
        told = -1.0
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
            elif recall - told > 0.03:  # others lie on each other
                axes.annotate(
                    label,
                    (ms, recall),
                    (8, -3),
                    textcoords="offset points",
                    fontsize=8,
                    color="dimgrey",
                    va="top",
                )
                told = recall
        axes.set(xlabel="ms a query, many asked at once", ylabel="share of exact search's items")
        axes.set_xlim(0, 1.15 * axes.get_xlim()[1])
        axes.set_ylim(min(0.9, axes.get_ylim()[0]), 1.01)
        axes.legend(loc="lower right", frameon=False)


def plane(places: Doubles, colours: npt.NDArray[Any], name: str, file: File) -> None:
    """Dots [n, 2] on a plane; coloured by the nine commonest texts (the rest grey), or by a number
    on a log scale. colours: [n].
    """
    with _figure(file, WIDE) as axes:
        axes.grid(visible=False)
        axes.set(xticks=[], yticks=[], xlabel="first principal component", ylabel="second")
        if colours.dtype.kind == "f":
            dots = axes.scatter(
                *places.T,
                c=np.maximum(colours, 0.1),
                s=6,
                norm="log",
                cmap="viridis_r",
                linewidths=0,
            )
            axes.figure.colorbar(dots, ax=axes, label=name)
            return
        names, codes, counts = np.unique(colours, return_inverse=True, return_counts=True)
        common = np.argsort(-counts, kind="stable")[:9]
        rest = ~np.isin(codes, common)
        if rest.any():
            axes.scatter(
                *places[rest].T,
                s=5,
                color="lightgrey",
                linewidths=0,
                label=f"{len(names) - len(common)} others ({rest.sum():,})",
            )
        for place, code in enumerate(common):
            axes.scatter(
                *places[codes == code].T,
                s=7,
                color=f"C{place}",
                linewidths=0,
                label=f"{_cut(names[code])} ({counts[code]:,})",
            )
        axes.legend(
            loc="center left",
            bbox_to_anchor=(1, 0.5),
            frameon=False,
            markerscale=3,
            title=_cut(name),
        )


def intervals(
    rows: Sequence[tuple[str, Sequence[tuple[float, float, float] | None]]],
    names: Sequence[str],
    xlabel: str,
    file: File,
) -> None:
    """A line a row, for each of `names` a dot with its interval. rows: label and, for each name,
    (value, low, high) or None.
    """
    with _figure(file, (SIZE[0], 0.9 + 0.5 * len(rows))) as axes:
        for nth, name in enumerate(names):
            known = [(place, found[nth]) for place, (_, found) in enumerate(rows)]
            dots = [
                (place + 0.22 * (nth - (len(names) - 1) / 2), *values)
                for place, values in known
                if values is not None
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


def days(
    labels: Sequence[str],
    rows: Sequence[int],
    lines: Mapping[str, Sequence[float | None]],
    file: File,
) -> None:
    """Rows a day as bars, and under them what is measured of each day as lines, all on one axis
    from 0 to 1 at most.
    """
    with _panels(file, 2, 1, (SIZE[0], 5.2), sharex=True) as grid:
        above, below = grid[:, 0]
        places = np.arange(len(labels))
        above.bar(places, rows, color="tab:blue", width=0.7)
        above.yaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
        above.set_ylabel("rows")
        for name, values in lines.items():
            below.plot(
                places,
                [np.nan if value is None else value for value in values],
                "o-" if len(places) <= 31 else "-",
                markersize=4,
                linewidth=1.3,
                label=_cut(name),
            )
        below.set_ylim(
            0, min(max(0.05, below.get_ylim()[1]), 1.05)
        )  # a day of a hundred times the rows would hide the others
        below.set_ylabel("distance from the days before")
        shown = places[:: max(1, len(places) // 8)]
        below.set_xticks(shown, [labels[place] for place in shown], rotation=30, ha="right")
        below.legend(loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)


def _cut(text: str, most: int = 24) -> str:
    """A label that fits beside a picture. Matplotlib would leave out one that begins with `_`, and
    take `$` for mathematics.
    """
    fits = text if len(text) <= most else text[: most - 1] + "…"
    return " " * text.startswith("_") + fits.replace("$", r"\$")


def _line(axes: Any, history: Sequence[Mapping[str, Any]], key: str, **style: Any) -> None:
    points = [(point["step"], point[key]) for point in history if point.get(key) is not None]
    if points:
        axes.plot(*zip(*points, strict=True), **style)


@contextmanager
def _figure(file: File, size: tuple[float, float] = SIZE) -> Iterator[Any]:
    with _panels(file, 1, 1, size) as grid:
        yield grid[0, 0]


@contextmanager
def _panels(
    file: File, rows: int, columns: int, size: tuple[float, float], **options: Any
) -> Iterator[Any]:
    """Axes [rows, columns] to draw on; written to the file in the end."""
    figure, grid = plt.subplots(
        rows, columns, figsize=size, layout="constrained", squeeze=False, **options
    )
    for axes in grid.flat:
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(alpha=0.25)
    try:
        yield grid
        figure.savefig(file, dpi=120)
    finally:
        plt.close(figure)
