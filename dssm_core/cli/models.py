"""Which version is champion: `dssm promote`, `dssm rollback`, `dssm history`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from dssm_core.cli import screen
from dssm_core.cli.terminal import BY, RUNS, console, now

if TYPE_CHECKING:
    from dssm_core.operation.history import Action
    from dssm_core.registry.versions import RegisteredModel

MODEL = click.argument("model")


@click.command(short_help="Make a version of a model the champion.")
@MODEL
@click.option("--version", help="Version to promote. Default: the challenger.")
@click.option("--reason", default="", help="Why you promote it.")
@BY
@RUNS
def promote(model: str, version: str | None, reason: str, by: str, runs_folder: Path) -> None:
    """Make a version of MODEL the champion. The old champion becomes previous_champion.

    MODEL is the registered name, such as dssm-demo. The version is loaded and queried first.
    The decision is written to the tags of the version and to `dssm history`.

    \b
    Examples:
      dssm promote dssm-demo --reason "recall is up by 2 %"
      dssm promote dssm-demo --version 3
    """
    decide("promote", model, version, reason, by, runs_folder)


@click.command(short_help="Make an earlier version the champion again.")
@MODEL
@click.option("--version", help="Version to go back to. Default: previous_champion.")
@click.option("--reason", required=True, help="Why you go back.")
@BY
@RUNS
def rollback(model: str, version: str | None, reason: str, by: str, runs_folder: Path) -> None:
    """Make the previous champion of MODEL, or any other version, the champion again.

    \b
    Example:
      dssm rollback dssm-demo --reason "fewer clicks since this morning"
    """
    decide("rollback", model, version, reason, by, runs_folder)


def decide(
    action: Action, model: str, version: str | None, reason: str, by: str, runs_folder: Path
) -> None:
    """Decide on a version, after loading and querying it, and print the decision as JSON."""
    from dssm_core.operation import promotion
    from dssm_core.registry.check import check_version

    def check(store: RegisteredModel, number: str) -> None:
        console.print(f"loading and querying version {number} ...", highlight=False)
        check_version(store.name, number, runs_folder)

    at = now()
    decision = promotion.decide(action, model, runs_folder, at, by, reason, version, check=check)
    if decision.at != at:
        console.print(
            f"version {decision.champion} is champion already: nothing was changed; "
            "the decision that made it champion:",
            highlight=False,
            soft_wrap=True,
        )
    click.echo(decision.model_dump_json())


@click.command(short_help="List the champions of a model.")
@MODEL
@click.option(
    "--decisions",
    is_flag=True,
    help="List all decisions, including those that did not change the champion.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object a decision.")
@RUNS
def history(model: str, decisions: bool, as_json: bool, runs_folder: Path) -> None:
    """List the champions of MODEL: which version, from when to when, who decided, and why.

    \b
    Examples:
      dssm history dssm-demo
      dssm history dssm-demo --decisions
    """
    from dssm_core.operation.history import reigns
    from dssm_core.operation.promotion import current_history

    rows = current_history(model, runs_folder, now())
    if as_json:
        for decision in rows:
            click.echo(decision.model_dump_json())
    elif not rows:
        console.print(
            f"nothing was decided on {model!r} yet: answer its review in Airflow, "
            "or use `dssm promote`",
            highlight=False,
            soft_wrap=True,
        )
    elif decisions:
        screen.print_table(screen.decisions_table(rows))
    else:
        screen.print_table(screen.reigns_table(reigns(rows)))
