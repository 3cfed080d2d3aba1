"""What a section of the report is made of. The template `report.html` turns it into HTML."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import pandas as pd

CSV_ROWS = 5_000  # at most, of a picture's data
TEMPLATE = "report.html"  # beside this file


class Absent(Exception):
    """A section has nothing to show; the message says why."""


@dataclass(frozen=True)
class ReportTable:
    """Rows of cells: text, or a list of (text, marked).

    numbers: all columns but the first hold numbers; folded: closed until it is clicked.
    """

    head: Sequence[str]
    rows: Sequence[Sequence[Any]]
    caption: str = ""
    numbers: bool = False
    folded: bool = False


@dataclass(frozen=True)
class Picture:
    """A PNG in base64, its caption, its data as CSV, and what to call them."""

    png: str
    caption: str
    csv: str
    data: str


@dataclass(frozen=True)
class ReportSection:
    """A part of the page. says: paragraphs; absent: why there is nothing to show."""

    title: str
    says: Sequence[str] = ()
    pictures: Sequence[Picture] = ()
    tables: Sequence[ReportTable] = ()
    absent: str = ""


def picture(
    caption: str, table: pd.DataFrame, draw: Callable[..., None], *arguments: Any
) -> Picture:
    """Draw into memory. draw: a function of plots, called with the arguments and a file.

    table: what is drawn. Of more than CSV_ROWS rows, the page has that many at even steps.
    """
    buffer = io.BytesIO()
    draw(*arguments, buffer)
    png = base64.b64encode(buffer.getvalue()).decode()
    rows = np.unique(np.linspace(0, max(len(table) - 1, 0), CSV_ROWS).astype(int))
    some = table.iloc[rows] if len(table) > CSV_ROWS else table
    of = f"{len(some):,} of {len(table):,} rows" if some is not table else f"{len(table):,} rows"
    csv = some.to_csv(index=False, float_format="%.6g", lineterminator="\n")
    return Picture(png, caption, csv, f"Data of this picture (CSV, {of})")


def render_page(**parts: Any) -> str:
    """A page as HTML; everything that comes from data is escaped.

    parts: title, subtitle, dag_run (that made the run, or None), verdict (kind, says, reasons),
    cards (title, value) and sections.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
    )
    return environment.get_template(TEMPLATE).render(**parts)
