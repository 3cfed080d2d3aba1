"""One command a step: `dssm STEP --run FOLDER` executes one step of an existing run."""

from __future__ import annotations

from pathlib import Path

import click

from dssm_core.cli import screen
from dssm_core.cli.terminal import RUN_FOLDER
from dssm_core.runs.table import STEPS

FIELDS = {"step", "rows", "info", "seconds", "reused_from"}


def step_commands() -> list[click.Command]:
    """A command for each step, in the order of the pipeline."""
    return [_step_command(name, step.title) for name, step in STEPS.items()]


def _step_command(name: str, title: str) -> click.Command:
    @click.command(name, help=_help(name, title), short_help=f"Step: {title}")
    @RUN_FOLDER
    def command(folder: Path) -> None:
        from dssm_core.runs.pipeline import run_step
        from dssm_core.runs.run import open_run

        screen.print_step_start(name)
        manifest = run_step(open_run(folder), name)
        screen.print_step_end(manifest)
        click.echo(manifest.model_dump_json(include=FIELDS))

    return command


def _help(name: str, title: str) -> str:
    return f"""Execute one step of a run: {title}.

    The steps before it must be done. If this step is done with the same settings and inputs, it
    is not executed again. The step's row counts and results are printed as JSON.

    \b
    Example:
      dssm {name} --run runs/demo/2024-03-07/ID
    """
