"""Axes to draw on, and what all pictures share."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

SIZE = (8.0, 4.8)
WIDE = (8.0, 4.2)
NORMAL_95 = 1.96  # standard errors to either side that hold 95 % of a normal mean
LABEL_LENGTH = 24
PictureFile = Path | BinaryIO


def label_of(text: str, most: int = LABEL_LENGTH) -> str:
    """A label that fits beside a picture.

    It is escaped: Matplotlib leaves out labels that begin with `_`, and reads `$` as mathematics.
    """
    fits = text if len(text) <= most else text[: most - 1] + "…"
    return " " * text.startswith("_") + fits.replace("$", r"\$")


@contextmanager
def figure(file: PictureFile, size: tuple[float, float] = SIZE) -> Iterator[Any]:
    """One pair of axes to draw on; written to the file at the end."""
    with panels(file, 1, 1, size) as grid:
        yield grid[0, 0]


@contextmanager
def panels(
    file: PictureFile, rows: int, columns: int, size: tuple[float, float], **options: Any
) -> Iterator[Any]:
    """Axes [rows, columns] to draw on; written to the file at the end."""
    drawn, grid = plt.subplots(
        rows, columns, figsize=size, layout="constrained", squeeze=False, **options
    )
    for axes in grid.flat:
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(alpha=0.25)
    try:
        yield grid
        drawn.savefig(file, dpi=120)
    finally:
        plt.close(drawn)
