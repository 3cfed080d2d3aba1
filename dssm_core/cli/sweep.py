"""`dssm sweep`: try combinations of settings, then train the best one on all days."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.markup import escape

from dssm_core.cli import screen
from dssm_core.cli.run import create_cli_run, finish
from dssm_core.cli.terminal import CONFIG, DATA, RUNS, SET, console
from dssm_core.errors import DssmError
from dssm_core.tuning.proposals import MOST_TRIALS, SEARCHES

if TYPE_CHECKING:
    from dssm_core.tuning.sweep import Plan
    from dssm_core.tuning.trials import Trial


@click.command(short_help="Try combinations of settings, then run the best one.")
@CONFIG
@click.option(
    "--axis",
    "axes",
    multiple=True,
    required=True,
    metavar="KEY=VALUE,VALUE",
    help="Setting and the values to try. Repeat it for several settings.",
)
@click.option(
    "--search",
    type=click.Choice(SEARCHES),
    default="grid",
    show_default=True,
    help="grid: all combinations. optuna: a search that learns from earlier trials.",
)
@click.option(
    "--trials",
    "total",
    default=12,
    show_default=True,
    type=click.IntRange(1, MOST_TRIALS),
    help="Number of trials of a search by Optuna.",
)
@DATA
@SET
@RUNS
def sweep(
    config: Path,
    axes: tuple[str, ...],
    search: str,
    total: int,
    data: str | None,
    overrides: tuple[str, ...],
    runs_folder: Path,
) -> None:
    """Try combinations of settings of CONFIG, then run the best one.

    A trial is judged by its served index on the last training days, never on the test day. The
    best combination then runs from the log to a registered model, as with `dssm run`. A trial
    that fails does not stop the others. A sweep needs a split by days (split.kind: days) with
    two training days or more.

    A search by Optuna also accepts a range, `low..high`. Add ` log` if the values should be
    spread by ratio.

    \b
    Examples:
      dssm sweep configs/demo.yaml --axis loss=bce,bpr --axis sampler=active,popularity
      dssm sweep configs/demo.yaml --search optuna --trials 8 \\
          --axis "train.learning_rate=0.0005..0.01 log"
    """
    from dssm_core.config import read_config
    from dssm_core.runs.files import digest
    from dssm_core.runs.pipeline import run_pipeline
    from dssm_core.tuning.axes import read_axes
    from dssm_core.tuning.sweep import Plan
    from dssm_core.tuning.trials import results, winner

    plan = Plan(config, data, overrides, read_axes(axes), search, total)
    name = f"cli-{digest([str(config), data, overrides, axes, search, total])[:10]}"
    trials = _run_trials(plan, name, runs_folder)
    screen.print_table(screen.trials_table(results(trials)))
    best = winner(trials)
    settings = read_config(config, data, [*overrides, *best.settings])
    run = create_cli_run(settings, runs_folder)
    console.print(
        f"best trial: {escape(best.label)}; now on all days: run {run.root}",
        highlight=False,
        soft_wrap=True,
    )
    finish(run, run_pipeline(run, screen.print_step_start, screen.print_step_end))


def _run_trials(plan: Plan, name: str, runs_folder: Path) -> list[Trial]:
    """Run all trials, round by round, as child runs of one MLflow run."""
    from dssm_core.tuning import sweep
    from dssm_core.tuning.sweep_run import close_sweep, open_sweep
    from dssm_core.tuning.trials import results

    done: list[Trial] = []
    while chosen := sweep.next_round(plan, done):
        trials = sweep.prepare(plan, chosen, runs_folder)
        labels = [trial.combination.label for trial in trials]
        parent = open_sweep([trial.run for trial in trials], labels, name)
        for trial, label in zip(trials, labels, strict=True):
            console.print(f"[bold]trial {len(done) + 1}[/]: {escape(label)}", highlight=False)
            done.append(replace(trial, failed=not _succeeds(trial)))
    close_sweep(runs_folder, parent, results(done))
    return done


def _succeeds(trial: Trial) -> bool:
    """Run a trial, and return whether it reached the gate. Any error fails this trial only, such
    as a GPU with too little memory for it.
    """
    from dssm_core.runs.pipeline import run_pipeline
    from dssm_core.tuning.trials import LAST_STEP

    try:
        run_pipeline(trial.run, screen.print_step_start, screen.print_step_end, LAST_STEP)
    except Exception as error:
        message = str(error) if isinstance(error, DssmError) else repr(error)
        console.print(f"[red]failed[/]: {escape(message)}", highlight=False, soft_wrap=True)
        return False
    return True
