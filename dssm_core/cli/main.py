"""The group `dssm` and its commands, in the order in which `dssm --help` lists them."""

from __future__ import annotations

import click

from dssm_core.cli.audience import lookalike
from dssm_core.cli.data import land
from dssm_core.cli.first_hour import check, init
from dssm_core.cli.models import history, promote, rollback
from dssm_core.cli.recommend import recommend
from dssm_core.cli.run import report, run, runs
from dssm_core.cli.serving import publish, refresh
from dssm_core.cli.settings import settings
from dssm_core.cli.steps import step_commands
from dssm_core.cli.sweep import sweep
from dssm_core.cli.terminal import HELP_OPTIONS, Group, log_to_terminal

COMMANDS = (
    init,
    check,
    run,
    sweep,
    settings,
    land,
    runs,
    report,
    promote,
    rollback,
    history,
    publish,
    refresh,
    recommend,
    lookalike,
)


@click.group(cls=Group, context_settings=HELP_OPTIONS)
@click.option("--verbose", "-v", is_flag=True, help="Log every training point.")
def main(verbose: bool) -> None:
    """Train a two-tower retrieval model from a click log, and judge it by recall@200.

    Start with `dssm run configs/demo.yaml`. It needs neither Airflow nor a server.

    Metrics and models go to MLflow: to the server in $MLFLOW_TRACKING_URI, or to a SQLite file
    in the runs folder if the variable is not set.

    Results go to stdout; progress and errors go to stderr. `dssm COMMAND --help` explains a
    command and shows an example.
    """
    log_to_terminal(verbose)


for _command in (*COMMANDS, *step_commands()):
    main.add_command(_command)
