"""`dssm run` runs the pipeline, `dssm runs` lists the runs, `dssm report` regenerates a report."""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from dssm_core.cli import screen
from dssm_core.cli.comparison import comparison_tables
from dssm_core.cli.models import decide
from dssm_core.cli.terminal import (
    CONFIG,
    DATA,
    RUN_FOLDER,
    RUNS,
    SET,
    TEST_DAY,
    RunFolder,
    console,
    test_day_setting,
)

if TYPE_CHECKING:
    from dssm_core.aliases import JSON
    from dssm_core.config import Config
    from dssm_core.runs.run import Run


@click.command(short_help="Run all steps, from reading the log to registering the model.")
@CONFIG
@DATA
@TEST_DAY
@SET
@click.option(
    "--days",
    type=click.Path(path_type=Path),
    help="Folder of landed days (see `dssm land`). The window is read from it, not from the log.",
)
@click.option(
    "--run-id",
    help="Name of the run. By default it is a hash of the settings, so that the same command "
    "continues the same run.",
)
@click.option(
    "--until",
    metavar="STEP",
    help="Last step to run. With recall_gate the model is judged but not registered.",
)
@click.option(
    "--json",
    "as_json",
    is_flag=True,
    help="Print the summary as one JSON object, on the last line of stdout.",
)
@RUNS
def run(
    config: Path,
    data: str | None,
    test_day: datetime | None,
    overrides: tuple[str, ...],
    days: Path | None,
    run_id: str | None,
    until: str | None,
    as_json: bool,
    runs_folder: Path,
) -> None:
    """Run all steps of CONFIG, a YAML file: from reading the log to registering the model.

    If the gate does not pass the model, nothing is registered and the reasons are printed. This is
    a result, not an error: the exit status is 0.

    \b
    Examples:
      dssm run configs/demo.yaml
      dssm run configs/demo.yaml --set loss.kind=bce --set train.epochs=3
      dssm run configs/globo.yaml --data /data/globo/clicks --test-day 2017-10-07
      dssm run configs/demo.yaml --until split_by_time
    """
    from dssm_core.config import read_config
    from dssm_core.data import landing
    from dssm_core.runs.pipeline import run_pipeline
    from dssm_core.runs.table import find_step

    if until:
        find_step(until)
    settings = read_config(config, data, (*overrides, *test_day_setting(test_day)))
    if days:
        settings = landing.use_landed_days(settings, days.resolve())
    opened = create_cli_run(settings, runs_folder, run_id)
    console.print(f"run {opened.root}", highlight=False, soft_wrap=True)
    result = run_pipeline(opened, screen.print_step_start, screen.print_step_end, until)
    finish(opened, result)
    if as_json:
        click.echo(json.dumps(result))


def create_cli_run(config: Config, runs_folder: Path, run_id: str | None = None) -> Run:
    """Create a run, or open it if it exists. Its default id is a hash of the settings."""
    from dssm_core.runs.files import digest
    from dssm_core.runs.run import create_run

    settings_hash = digest(config.deciding())[:10]
    return create_run(config, runs_folder, run_id or f"cli-{settings_hash}")


def finish(run: Run, result: JSON) -> None:
    """Print the summary of a run, and promote its version if gate.promote_margin allows it."""
    from dssm_core.errors import masked
    from dssm_core.operation import promotion
    from dssm_core.tracking.client import tracking_uri

    screen.print_summary(result)
    if result["version"]:
        model = run.config.model_name
        screen.print_use(masked(tracking_uri(run.runs)), model, result["version"])
        if reason := promotion.alone(run):
            decide("promote", model, str(result["version"]), reason, promotion.GATE, run.runs)


@click.command(short_help="List the runs, or compare two of them.")
@click.option(
    "--compare",
    nargs=2,
    type=RunFolder(),
    metavar="RUN RUN",
    help="Print the settings and the numbers in which two runs differ. Each is given by its folder,"
    " its id or the start of it.",
)
@RUNS
def runs(compare: tuple[Path, Path] | None, runs_folder: Path) -> None:
    """List the runs by test day: dataset and id, steps done, recall and verdict of the gate.

    \b
    Examples:
      dssm runs --runs /data/runs
      dssm runs --compare cli-1f cli-9a
    """
    from dssm_core.runs.run import find_runs, open_run

    if compare:
        for table in comparison_tables(*map(open_run, compare)):
            screen.print_table(table)
        return
    found = sorted(
        find_runs(runs_folder), key=lambda run: (run.config.name, run.config.split.title)
    )
    screen.print_table(screen.runs_table(found))


@click.command(short_help="Regenerate the report of a run.")
@RUN_FOLDER
@click.option(
    "--to",
    "file",
    type=click.Path(dir_okay=False, path_type=Path),
    help="File to write; report.html in the run's folder by default.",
)
def report(folder: Path, file: Path | None) -> None:
    """Regenerate the report of a run, and print the path of the file.

    The report shows data, recall, slices, calibration, index, map, neighbours and users on one
    page. The gate writes one into recall_gate/, even if it does not pass the model; that file
    is not changed. If the run has not reached the gate, the report shows the steps that are done.

    \b
    Example:
      dssm report --run runs/demo/2024-03-07/ID
    """
    from dssm_core.report import page
    from dssm_core.runs.layout import REPORT_FILE
    from dssm_core.runs.run import open_run

    run = open_run(folder)
    click.echo(str(page.write(run, run.step("recall_gate"), file or run.root / REPORT_FILE)))
