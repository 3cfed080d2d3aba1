"""`dssm recommend`: the lists of all users, or of those in a file."""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path

import click
from click.core import ParameterSource

from dssm_core.cli.terminal import (
    INSTEAD_OF_MODEL,
    MODEL,
    RUNS,
    VERSION,
    model_or_run,
    now,
    utc_ms,
)
from dssm_core.errors import ConfigError


@click.command(short_help="Write the best items of all users.")
@MODEL
@VERSION
@INSTEAD_OF_MODEL
@click.option(
    "--users",
    type=click.Path(path_type=Path),
    help="File of the users to answer: .parquet or .csv with a column user_id, or text with one id"
    " a line. Default: all users of the training set.",
)
@click.option(
    "--k",
    default=200,
    show_default=True,
    type=click.IntRange(1, 10_000),
    help="Maximum number of items in a list.",
)
@click.option(
    "--filter",
    "filters",
    multiple=True,
    metavar="CONDITION",
    help="Condition on item columns that all listed items meet, beside the model's own. Repeat it"
    " for several conditions.",
)
@click.option(
    "--exclude-seen/--include-seen",
    default=None,
    help="Whether to leave out the items that a user has seen. Default: as the model is judged.",
)
@click.option(
    "--as-of",
    type=click.DateTime(["%Y-%m-%dT%H:%M", "%Y-%m-%dT%H:%M:%S"]),
    metavar="YYYY-MM-DDTHH:MM",
    help="Time at which listed items are available, in UTC. Default: now.",
)
@click.option(
    "--refreshed",
    envvar="DSSM_REFRESHED",
    show_envvar=True,
    type=click.Path(path_type=Path),
    help="Folder of refreshed bundles: the latest refresh of the version answers, if it has one."
    " Not with --run: a run has no refreshes, and the variable has no effect on it.",
)
@click.option(
    "--to",
    "target",
    required=True,
    type=click.Path(path_type=Path),
    help="Parquet file to write.",
)
@RUNS
def recommend(
    model: str | None,
    version: str | None,
    folder: Path | None,
    users: Path | None,
    k: int,
    filters: tuple[str, ...],
    exclude_seen: bool | None,
    as_of: datetime | None,
    refreshed: Path | None,
    target: Path,
    runs_folder: Path,
) -> None:
    """Write the best items of all users of MODEL, or of those in a file.

    The lists are those that a server with the same $DSSM_REFRESHED answers with. The file has a
    row for each user, with the columns user_id, item_ids and scores (lists, best first) and source
    (which rule answered the row). It is written completely or not at all.

    A file of users can have the other columns of a request too: history (item ids, newest last),
    exclude (item ids that are not to be listed), context and user columns. In a .csv file, separate
    the ids in a cell by spaces. Unknown users get lists too; their number is printed.

    \b
    Examples:
      dssm recommend dssm-demo --k 200 --to lists.parquet
      dssm recommend dssm-demo --filter "category == 'news'" --exclude-seen --to news.parquet
      dssm recommend --run runs/demo/2024-03-07/ID --users users.csv --to lists.parquet
    """
    from dssm_core.operation import recommend as recommending
    from dssm_core.operation.opened import opened

    source = model_or_run(model, folder, runs_folder)
    if folder and _given("refreshed"):
        raise ConfigError(
            f"--refreshed {str(refreshed)!r} holds refreshes of registered versions, and run"
            f" {source.id!r} has none: leave it out, or give the MODEL that the run registered"
        )
    with opened(source, version, refreshed) as (bundle, about):
        rules = bundle.rules(utc_ms(as_of or now()), exclude_seen, filters)
        lists = recommending.UserLists(bundle, rules, k)
        click.echo(json.dumps(about | recommending.recommend(lists, target, users)))


def _given(option: str) -> bool:
    """Whether an option is on the command line, not from a variable or its default."""
    return click.get_current_context().get_parameter_source(option) is ParameterSource.COMMANDLINE
