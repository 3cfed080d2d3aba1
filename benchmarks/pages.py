"""A table's section of docs/benchmarks.md and its picture, generated from its records."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path

from benchmarks.runner import CHECKOUT, Bench, Job, Row, Table, jobs_of
from dssm_core.aliases import JSON
from dssm_core.report import plots
from dssm_core.runs.files import write_atomically

TRAINING = ("sample_negatives", "train_towers")
SAME_PROTOCOL = "By the protocol of the table of that name."
DOCS = "docs/benchmarks.md"


@dataclass(frozen=True)
class Line:
    """A row of a table on one test day: its runs and their records (None: not run)."""

    row: Row
    day: date | None
    jobs: tuple[Job, ...]
    records: tuple[JSON | None, ...]

    @property
    def measured(self) -> list[JSON]:
        """The records of runs that ended well."""
        return [record for record in self.records if record and not record["error"]]

    @property
    def failed(self) -> list[JSON]:
        """The records of runs that ended in an error."""
        return [record for record in self.records if record and record["error"]]

    def values(self, column: str) -> list[float]:
        """A column's figure of each seed that has one."""
        found = [figure(record["metrics"], self.row, column) for record in self.measured]
        return [value for value in found if value is not None]


def figure(metrics: JSON, row: Row, column: str) -> float | None:
    """A row's figure in a run's report; None where the report has none. column: `recall@20`, or
    `all.recall@20` in the slice `all`.
    """
    slice_name, _, name = column.rpartition(".")
    node = metrics.get(slice_name, {}) if slice_name else metrics
    who = (
        ["ceiling"] if row.ceiling else ["baselines", row.baseline] if row.baseline else ["served"]
    )
    for key in who:
        node = node.get(key, {})
    found: float | None = (
        max(node.get(row.best_of.get(name, ""), {}).values(), default=None)
        if row.best_of
        else node.get(name)
    )
    return found


def lines_of(table: Table, by_job: Mapping[str, JSON], checkout: Path = CHECKOUT) -> list[Line]:
    """The table's lines in its order, day by day."""
    days = {row.title: jobs_of(table, row, checkout) for row in table.rows}
    order: tuple[date | None, ...] = table.test_days or (None,)
    lines = [
        (row, day, tuple(days[row.title].get(day, ())))
        for day in order
        for row in table.rows
        if day in days[row.title]
    ]
    published = [(row, None, ()) for row in table.rows if table.test_days and row.config is None]
    return [
        Line(row, day, jobs, tuple(by_job.get(job.id) for job in jobs))
        for row, day, jobs in [*lines, *published]
    ]


def section(
    bench: Bench, by_job: Mapping[str, JSON], command: str, checkout: Path = CHECKOUT
) -> str:
    """The Markdown between a bench's markers."""
    parts = [f"```\n{command}\n```", machine(by_job.values())]
    for table in bench.tables:
        lines = [line for line in lines_of(table, by_job, checkout) if by_job or line.row.published]
        head = (
            [f"### {table.title}, {len(table.seeds)} seeds", SAME_PROTOCOL]
            if bench.parts
            else [table.protocol.strip()]
        )
        parts += [
            *head,
            markdown(table, lines) if lines else "",
            *remarks(lines),
            table.note.strip(),
        ]
    if panels(bench, by_job, checkout):
        parts.append(f"![{bench.title}](images/bench-{bench.name}.png)")
    return "\n\n".join(part for part in parts if part)


def markdown(table: Table, lines: Sequence[Line]) -> str:
    """The table: mean ± standard deviation over seeds; the best of our own lists of each day in
    bold; published figures apart.
    """
    published = any(line.row.published for line in lines)
    heads = ["system", *(["test day"] if table.test_days else []), *table.columns.values()]
    heads += [
        *(["published", "same data", "source"] if published else []),
        "seeds",
        "train, s",
        "run, s",
        "peak GiB",
        "parameters",
    ]
    best = {
        (day, column): _best(lines, day, column)
        for day in (table.test_days or (None,))
        for column in table.columns
    }
    rows = []
    for line in lines:
        figures = [
            _figure(line, column, line is best.get((line.day, column))) for column in table.columns
        ]
        cells = [_system(line), *([str(line.day or "")] if table.test_days else []), *figures]
        rows.append(
            [
                *cells,
                *(_published(line.row, table) if published else []),
                str(len(line.measured) or "–"),
                *_cost(line),
            ]
        )
    return "\n".join([_cells(heads), "|---" * len(heads) + "|", *map(_cells, rows)])


def remarks(lines: Sequence[Line]) -> list[str]:
    """What a reader must know of some lines: errors, and figures of settings that have changed
    since.
    """
    errors = {line.row.title: line.failed[0]["error"] for line in lines if line.failed}
    told = [f"- {title} failed: {' '.join(error.split())[:300]}" for title, error in errors.items()]
    if stale := sorted({line.row.title for line in lines if _stale(line)}):
        told.append(
            f"- Measured with settings that have changed since, run them again: {', '.join(stale)}."
        )
    return ["\n".join(told)] if told else []


def machine(records: Iterable[JSON]) -> str:
    """On what the records were measured, in a sentence."""
    done = [record for record in records if not record["error"]]
    if not done:
        return "Not run yet."
    devices = sorted({record["device"] or "cpu" for record in done})
    threads = sorted({str(record["threads"]) for record in done})
    codes = sorted({record["code"][:8] for record in done})
    return (
        f"{len(done)} runs on {' and '.join(devices)}, threads each: {' or '.join(threads)}; code {', '.join(codes)}. "
        "Mean ± standard deviation over seeds. `train` is sampling and training, `run` all steps from reading the log to the gate; "
        "of a baseline, `train` is fitting and all its lists."
    )


def write(
    bench: Bench, by_job: Mapping[str, JSON], command: str, checkout: Path = CHECKOUT
) -> Path:
    """Put the section between its markers in docs/benchmarks.md (at the end where there are none)
    and draw its picture.
    """
    docs = checkout / DOCS
    text = docs.read_text(encoding="utf-8") if docs.is_file() else "# Benchmarks\n"
    write_atomically(docs, filled(text, bench, section(bench, by_job, command, checkout)).encode())
    if drawn := panels(bench, by_job, checkout):
        image = docs.parent / "images" / f"bench-{bench.name}.png"
        image.parent.mkdir(exist_ok=True)
        plots.bars(drawn, image)
    return docs


def filled(text: str, bench: Bench, content: str) -> str:
    """A document with a bench's section replaced, or added under a heading of its own."""
    start, end = f"<!-- bench:{bench.name} -->", f"<!-- /bench:{bench.name} -->"
    if start not in text or end not in text:
        text = f"{text.rstrip()}\n\n## {bench.title}\n\n{start}\n{end}\n"
    before, _, rest = text.partition(start)
    return f"{before}{start}\n{content}\n{end}{rest.partition(end)[2]}"


def panels(
    bench: Bench, by_job: Mapping[str, JSON], checkout: Path = CHECKOUT
) -> list[plots.Panel]:
    """The first column of each table as bars; a table of which nothing is measured has no picture."""
    drawn = [_panel(table, lines_of(table, by_job, checkout)) for table in bench.tables]
    return [panel for panel in drawn if any(bar.mean is not None for bar in panel.bars)]


def _panel(table: Table, lines: Sequence[Line]) -> plots.Panel:
    column = next(iter(table.columns))
    bars = []
    for line in lines:
        values = line.values(column)
        if values or column in line.row.published:
            label = f"{line.row.title}, {line.day}" if line.day else line.row.title
            mean, spread = (statistics.fmean(values), _spread(values)) if values else (None, 0.0)
            bars.append(
                plots.Bar(label, mean, spread, line.row.published.get(column), line.row.trained)
            )
    return plots.Panel(table.title, table.columns[column], bars)


def _best(lines: Sequence[Line], day: date | None, column: str) -> Line | None:
    able = [
        line
        for line in lines
        if line.day == day and not line.row.ceiling and not line.row.best_of and line.values(column)
    ]
    return max(able, key=lambda line: statistics.fmean(line.values(column)), default=None)


def _figure(line: Line, column: str, best: bool) -> str:
    values = line.values(column)
    if not values:
        return "failed" if line.failed else "not run" if line.jobs and not line.measured else "–"
    text = f"{statistics.fmean(values):.3f}"
    spread = _spread(values)
    return (f"**{text}**" if best else text) + (f" ± {spread:.3f}" if spread >= 5e-5 else "")


def _spread(values: Sequence[float]) -> float:
    return statistics.stdev(values) if len(values) > 1 else 0.0


def _system(line: Line) -> str:
    return (
        f"[{line.row.title}](../configs/{line.row.config})" if line.row.trained else line.row.title
    )


def _published(row: Row, table: Table) -> list[str]:
    if not row.published:
        return ["", "", ""]
    figures = ", ".join(
        f"{table.columns[name]} {_places(value)}" for name, value in row.published.items()
    )
    same = (
        {True: "yes", False: "no"}.get(row.same_data, row.same_data)
        if isinstance(row.same_data, bool)
        else row.same_data
    )
    return [figures, str(same), str(row.source)]


def _cost(line: Line) -> list[str]:
    if not line.row.trained or not line.measured:
        took = (
            [
                record["metrics"]["baselines"][line.row.baseline].get("seconds")
                for record in line.measured
            ]
            if line.row.baseline
            else []
        )
        took = [seconds for seconds in took if seconds is not None]
        return [f"{statistics.fmean(took):.1f}" if took else "–", *["–"] * 3]
    seconds = [record["seconds"] for record in line.measured]
    train = statistics.fmean(sum(each.get(step, 0) for step in TRAINING) for each in seconds)
    run = statistics.fmean(sum(each.values()) for each in seconds)
    peak = max(record["peak_gib"] for record in line.measured)
    parameters = line.measured[0]["parameters"]
    return [f"{train:.0f}", f"{run:.0f}", f"{peak:.1f}", _count(parameters) if parameters else "–"]


def _places(value: float) -> str:
    """Three decimals, or a fourth that is not 0."""
    return f"{value:.4f}".removesuffix("0")


def _count(value: int) -> str:
    return f"{value / 1e6:.2f} M" if value >= 1e5 else f"{value / 1e3:.0f} k"


def _stale(line: Line) -> bool:
    pairs = zip(line.jobs, line.records, strict=True)
    return any(
        record is not None and record["settings"] != job.settings_hash for job, record in pairs
    )


def _cells(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"
