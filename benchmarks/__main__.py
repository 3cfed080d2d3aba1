"""`python -m benchmarks NAME`: rerun a table of docs/benchmarks.md."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import click
from rich.console import Console
from rich.markup import escape
from rich.progress import MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table

from benchmarks import pages
from benchmarks.jobs import Job, all_jobs, check_data
from benchmarks.measuring import (
    exclusively,
    measure,
    remove_runs,
    remove_unfinished_trainings,
    step_of,
)
from benchmarks.records import measured_jobs, publish
from benchmarks.tables import CHECKOUT, Bench, find_tables, read_bench
from dssm_core.aliases import JSON
from dssm_core.cli.terminal import HELP_OPTIONS, RUNS, Command, console, log_to_terminal
from dssm_core.errors import ConfigError


@click.command(cls=Command, context_settings=HELP_OPTIONS)
@click.argument("name", required=False)
@click.option(
    "--data",
    envvar="DSSM_DATA",
    type=click.Path(path_type=Path),
    show_envvar=True,
    help="Folder that holds the click logs of the tables, e.g. FOLDER/globo/clicks.",
)
@click.option(
    "--rows",
    "patterns",
    multiple=True,
    metavar="TITLE",
    help="Run only rows with this title. Repeat it for several rows; `*` matches any text.",
)
@click.option(
    "--seeds", "seeds_text", metavar="1,2,3", help="Seeds to use instead of the table's own."
)
@click.option(
    "--jobs",
    "at_once",
    default=1,
    show_default=True,
    type=click.IntRange(1),
    help="Number of runs at a time. The cores are divided among them.",
)
@click.option(
    "--fresh",
    is_flag=True,
    help="Remove the earlier runs of this table from the runs folder, and run all of it again.",
)
@click.option(
    "--docs-only",
    is_flag=True,
    help="Run nothing: regenerate the page from benchmarks/results.",
)
@click.option("--checkout", type=click.Path(path_type=Path), default=CHECKOUT, hidden=True)
@RUNS
def main(
    name: str | None,
    data: Path | None,
    patterns: tuple[str, ...],
    seeds_text: str | None,
    at_once: int,
    fresh: bool,
    docs_only: bool,
    checkout: Path,
    runs_folder: Path,
) -> None:
    """Rerun the table NAME of docs/benchmarks.md, and regenerate its section of the page.

    NAME is a file of benchmarks/ without `.yaml`. Without NAME, the tables are listed.

    Each row and seed is a process of its own. It runs up to the gate and registers nothing. A row
    that was measured before with equal settings and code is not run again. A run that fails does
    not stop the others; the exit status is then 1.

    \b
    Examples:
      python -m benchmarks                            list the tables
      python -m benchmarks globo --data /data         rerun one table
      python -m benchmarks globo --data /data --rows 'two-tower*' --seeds 1
      python -m benchmarks globo --docs-only          regenerate its section only
    """
    log_to_terminal(verbose=False)
    if name is None:
        show_benches({file: read_bench(file, checkout) for file in find_tables(checkout)})
        return
    bench = read_bench(name, checkout, _seeds(seeds_text))
    all_jobs(bench, checkout)  # refuses an error in any config before anything runs
    records: list[JSON] = []
    if not docs_only:
        jobs = all_jobs(bench.only(patterns), checkout)
        check_data(bench, data)
        with exclusively(bench, runs_folder.resolve()):
            records = run_jobs(
                bench, jobs, runs_folder.resolve(), data.resolve() if data else None, at_once, fresh
            )
    command = command_of(bench, seeds_text)
    page = pages.write(bench, publish(bench, records, checkout), command, checkout)
    console.print(f"written: {page}", highlight=False, soft_wrap=True)
    if any(record["error"] for record in records):
        raise SystemExit(1)


def command_of(bench: Bench, seeds: str | None) -> str:
    """The command above the section in the page, by which a reader can repeat it."""
    parts = ["python -m benchmarks", bench.name]
    if any(table.data for table in bench.tables):
        parts.append("--data FOLDER")
    if seeds:
        parts.append(f"--seeds {seeds}")
    if bench.selected:  # otherwise the runs of the tables that it takes its rows from are reused
        parts.append("--fresh")
    return " ".join(parts)


def run_jobs(
    bench: Bench,
    titles: Mapping[Job, str],
    runs: Path,
    data: Path | None,
    at_once: int,
    fresh: bool,
) -> list[JSON]:
    """Run the jobs that are not measured yet, and show a line for each running one.

    Returns the records of all jobs: first those of earlier runs, then the new ones.
    """
    remove_runs(bench, runs) if fresh else remove_unfinished_trainings(bench, runs)
    earlier = {} if fresh else measured_jobs(titles, runs)
    console.print(f"{len(titles)} runs, {len(earlier)} of them measured already", highlight=False)
    columns = (TextColumn("{task.description}"), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        lines = JobLines(progress, bench.name, titles, done=len(earlier))
        new = measure(
            bench,
            [job for job in titles if job not in earlier],
            runs,
            data,
            at_once,
            lines.started,
            lines.ended,
            lines.tick,
        )
    return [*earlier.values(), *new]


class JobLines:
    """The progress of a bench on the terminal: a line for the whole, and one for each running
    job.
    """

    def __init__(self, progress: Progress, name: str, titles: Mapping[Job, str], done: int):
        self._progress = progress
        self._titles = titles
        self._total = progress.add_task(f"[bold]{name}", total=len(titles), completed=done)
        self._lines: dict[Job, tuple[TaskID, Path]] = {}

    def started(self, job: Job, log: Path) -> None:
        """Add the line of a job that has started and writes `log`."""
        self._lines[job] = (self._progress.add_task(self._title(job), total=None), log)

    def ended(self, job: Job, record: JSON) -> None:
        """Replace the line of a job by what came of it."""
        task, log = self._lines.pop(job)
        self._progress.remove_task(task)
        self._progress.advance(self._total)
        if record["error"]:
            text = f"[red]✗[/] {self._title(job)}: [red]failed[/], see {log}"
        else:
            text = f"[green]✓[/] {self._title(job)}: {sum(record['seconds'].values()):.0f} s"
        console.print(text, highlight=False, soft_wrap=True)

    def tick(self) -> None:
        """Show the step that each running job has reached."""
        for job, (task, log) in list(self._lines.items()):
            self._progress.update(task, description=f"{self._title(job)} [dim]{step_of(log)}")

    def _title(self, job: Job) -> str:
        day = [job.test_day.isoformat()] if job.test_day else []
        return escape(", ".join([self._titles[job], *day, f"seed {job.seed}"]))


def show_benches(benches: Mapping[str, Bench]) -> None:
    """List the tables: name, number of rows, seeds, title."""
    table = Table("table", "rows", "seeds", "", box=None, header_style="bold")
    for name, bench in benches.items():
        rows = sum(len(part.rows) for part in bench.tables)
        table.add_row(name, str(rows), ",".join(map(str, bench.tables[0].seeds)), bench.title)
    Console().print(table)


def _seeds(text: str | None) -> list[int]:
    try:
        return [int(seed) for seed in text.split(",")] if text else []
    except ValueError as error:
        raise ConfigError(
            f"--seeds {text!r} is not a list of whole numbers such as 1,2,3"
        ) from error


if __name__ == "__main__":
    main(prog_name="python -m benchmarks")
