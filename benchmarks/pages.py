"""The section of a bench in docs/benchmarks.md and its picture, generated from the records."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from benchmarks.lines import Line, best_line, lines_of, spread
from benchmarks.tables import CHECKOUT, Bench, BenchRow, BenchTable
from dssm_core.aliases import JSON
from dssm_core.report import plots
from dssm_core.runs.files import write_atomically

TRAINING = ("sample_negatives", "train_towers")
SAME_PROTOCOL = "Measured by the protocol of the table of that name."
LEGEND = (
    "Mean ± standard deviation over seeds. `train` is the time of sampling and training, `run` the "
    "time of all steps from reading the log to the gate. For a baseline, `train` is the time to "
    "fit it and to compute all its lists."
)
DOCS = "docs/benchmarks.md"
COSTS = ("seeds", "train, s", "run, s", "peak GiB", "parameters")
LEAST_SPREAD = 5e-5  # below it, three decimals of the standard deviation are 0.000 anyway


def write(
    bench: Bench, by_job: Mapping[str, JSON], command: str, checkout: Path = CHECKOUT
) -> Path:
    """Write the section of a bench between its marks in docs/benchmarks.md, and draw its picture.

    by_job: the records by job id. command: what a reader runs to repeat it. A bench without marks
    is added at the end. Returns the page.
    """
    docs = checkout / DOCS
    text = docs.read_text(encoding="utf-8") if docs.is_file() else "# Benchmarks\n"
    content = section(bench, by_job, command, checkout)
    write_atomically(docs, replace_section(text, bench, content).encode())
    if drawn := panels(bench, by_job, checkout):
        image = docs.parent / "images" / f"bench-{bench.name}.png"
        image.parent.mkdir(exist_ok=True)
        plots.bars(drawn, image)
    return docs


def replace_section(text: str, bench: Bench, content: str) -> str:
    """A page with the section of a bench replaced, or added under its own heading."""
    start = f"<!-- bench:{bench.name} -->"
    end = f"<!-- /bench:{bench.name} -->"
    if start not in text or end not in text:
        text = f"{text.rstrip()}\n\n## {bench.title}\n\n{start}\n{end}\n"
    before, _, rest = text.partition(start)
    return f"{before}{start}\n{content}\n{end}{rest.partition(end)[2]}"


def section(
    bench: Bench, by_job: Mapping[str, JSON], command: str, checkout: Path = CHECKOUT
) -> str:
    """The Markdown between the marks of a bench."""
    parts = [f"```\n{command}\n```", machine(by_job.values())]
    for table in bench.tables:
        lines = [line for line in lines_of(table, by_job, checkout) if by_job or line.row.published]
        if bench.selected:
            parts += [f"### {table.title}, {len(table.seeds)} seeds", SAME_PROTOCOL]
        else:
            parts.append(table.protocol.strip())
        parts += [markdown(table, lines) if lines else "", *remarks(lines), table.note.strip()]
    if panels(bench, by_job, checkout):
        parts.append(f"![{bench.title}](images/bench-{bench.name}.png)")
    return "\n\n".join(part for part in parts if part)


def machine(records: Iterable[JSON]) -> str:
    """How many runs were measured, on which device and code, and what the columns mean."""
    done = [record for record in records if not record["error"]]
    if not done:
        return "Not run yet."
    devices = " and ".join(sorted({record["device"] or "cpu" for record in done}))
    threads = " or ".join(sorted({str(record["threads"]) for record in done}))
    codes = ", ".join(sorted({record["code"][:8] for record in done}))
    return f"{len(done)} runs on {devices}, threads each: {threads}; code {codes}. {LEGEND}"


def markdown(table: BenchTable, lines: Sequence[Line]) -> str:
    """The table: mean ± standard deviation over seeds, the best measured system of each day in
    bold, published figures in columns of their own.
    """
    with_published = any(line.row.published for line in lines)
    head = ["system"]
    if table.test_days:
        head.append("test day")
    head += table.columns.values()
    if with_published:
        head += ["published", "same data", "source"]
    head += COSTS
    best = {
        (day, column): best_line(lines, day, column)
        for day in (table.test_days or (None,))
        for column in table.columns
    }
    rows = []
    for line in lines:
        cells = [_system(line)]
        if table.test_days:
            cells.append(str(line.day or ""))
        for column in table.columns:
            cells.append(_figure(line, column, bold=line is best.get((line.day, column))))
        if with_published:
            cells += _published(line.row, table)
        cells += [str(len(line.measured) or "–"), *_cost(line)]
        rows.append(cells)
    return "\n".join([_cells(head), "|---" * len(head) + "|", *map(_cells, rows)])


def remarks(lines: Sequence[Line]) -> list[str]:
    """The errors of failed rows, and the rows whose settings have changed since; as one Markdown
    list, or nothing.
    """
    items = []
    errors = {line.row.title: line.failed[0]["error"] for line in lines if line.failed}
    for title, error in errors.items():
        items.append(f"- {title} failed: {' '.join(error.split())[:300]}")
    if stale := sorted({line.row.title for line in lines if line.stale}):
        rows = ", ".join(stale)
        items.append(f"- The settings of these rows have changed since, run them again: {rows}.")
    return ["\n".join(items)] if items else []


def panels(
    bench: Bench, by_job: Mapping[str, JSON], checkout: Path = CHECKOUT
) -> list[plots.Panel]:
    """The first column of each table as bars. A table without measured rows has no panel."""
    drawn = [_panel(table, lines_of(table, by_job, checkout)) for table in bench.tables]
    return [panel for panel in drawn if any(bar.mean is not None for bar in panel.bars)]


def _panel(table: BenchTable, lines: Sequence[Line]) -> plots.Panel:
    column = next(iter(table.columns))
    bars = []
    for line in lines:
        values = line.values(column)
        if not values and column not in line.row.published:
            continue
        label = f"{line.row.title}, {line.day}" if line.day else line.row.title
        mean = statistics.fmean(values) if values else None
        published = line.row.published.get(column)
        bars.append(plots.Bar(label, mean, spread(values), published, line.row.trained))
    return plots.Panel(table.title, table.columns[column], bars)


def _system(line: Line) -> str:
    title = line.row.title
    return f"[{title}](../configs/{line.row.config})" if line.row.trained else title


def _figure(line: Line, column: str, bold: bool) -> str:
    values = line.values(column)
    if not values:
        return _no_figure(line)
    text = f"{statistics.fmean(values):.3f}"
    deviation = f" ± {spread(values):.3f}" if spread(values) >= LEAST_SPREAD else ""
    return (f"**{text}**" if bold else text) + deviation


def _no_figure(line: Line) -> str:
    if line.failed:
        return "failed"
    return "not run" if line.jobs and not line.measured else "–"


def _published(row: BenchRow, table: BenchTable) -> list[str]:
    """The published figures of a row, whether they are of the same data, and their source."""
    if not row.published:
        return ["", "", ""]
    figures = ", ".join(
        f"{table.columns[name]} {_decimals(value)}" for name, value in row.published.items()
    )
    same_data = row.same_data
    if isinstance(same_data, bool):
        same_data = "yes" if same_data else "no"
    return [figures, str(same_data), str(row.source)]


def _cost(line: Line) -> list[str]:
    """Training seconds, seconds of the whole run, peak GiB and parameters of a line's runs."""
    if not line.row.trained or not line.measured:
        return [_baseline_seconds(line), "–", "–", "–"]
    seconds = [record["seconds"] for record in line.measured]
    training = statistics.fmean(sum(steps.get(step, 0) for step in TRAINING) for steps in seconds)
    run = statistics.fmean(sum(steps.values()) for steps in seconds)
    peak = max(record["peak_gib"] for record in line.measured)
    parameters = line.measured[0]["parameters"]
    count = _count(parameters) if parameters else "–"
    return [f"{training:.0f}", f"{run:.0f}", f"{peak:.1f}", count]


def _baseline_seconds(line: Line) -> str:
    if not line.row.baseline:
        return "–"
    baselines = [record["metrics"]["baselines"][line.row.baseline] for record in line.measured]
    seconds = [baseline["seconds"] for baseline in baselines if baseline.get("seconds") is not None]
    return f"{statistics.fmean(seconds):.1f}" if seconds else "–"


def _decimals(value: float) -> str:
    """Three decimals, or four if the fourth is not 0."""
    return f"{value:.4f}".removesuffix("0")


def _count(value: int) -> str:
    return f"{value / 1e6:.2f} M" if value >= 1e5 else f"{value / 1e3:.0f} k"


def _cells(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"
