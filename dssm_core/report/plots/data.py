"""The days of the data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from dssm_core.report.plots.canvas import SIZE, PictureFile, label_of, panels


def days(
    labels: Sequence[str],
    rows: Sequence[int],
    lines: Mapping[str, Sequence[float | None]],
    file: PictureFile,
) -> None:
    """Rows of each day as bars; below them, what is measured of each day as lines.

    The axis of the lines ends at 1, so that a day with a hundred times the rows hides nothing.
    """
    with panels(file, 2, 1, (SIZE[0], 5.2), sharex=True) as grid:
        above, below = grid[:, 0]
        positions = np.arange(len(labels))
        above.bar(positions, rows, color="tab:blue", width=0.7)
        above.yaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
        above.set_ylabel("rows")
        for name, values in lines.items():
            below.plot(
                positions,
                [np.nan if value is None else value for value in values],
                "o-" if len(positions) <= 31 else "-",
                markersize=4,
                linewidth=1.3,
                label=label_of(name),
            )
        below.set_ylim(0, min(max(0.05, below.get_ylim()[1]), 1.05))
        below.set_ylabel("distance from the days before")
        shown = positions[:: max(1, len(positions) // 8)]
        below.set_xticks(shown, [labels[nth] for nth in shown], rotation=30, ha="right")
        below.legend(loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)
