"""`dssm land`: keep the days of a click log as they arrive."""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path

import click

from dssm_core.cli.terminal import CONFIG, DATA, now


@click.command(short_help="Copy days of a log to the folder of landed days.")
@CONFIG
@click.option(
    "--day",
    "midnights",
    type=click.DateTime(["%Y-%m-%d"]),
    metavar="YYYY-MM-DD",
    multiple=True,
    required=True,
    help="Day to land, in the time zone of the config. Repeat it for several days.",
)
@DATA
@click.option(
    "--days",
    envvar="DSSM_DAYS",
    default="days",
    show_default=True,
    show_envvar=True,
    type=click.Path(path_type=Path),
    help="Folder of all landed days.",
)
def land(config: Path, midnights: tuple[datetime, ...], data: str | None, days: Path) -> None:
    """Copy days of the log of CONFIG to the folder of landed days.

    `dssm run --days` then reads the days of its window from there and nothing else. A day that
    was landed before is replaced if its content differs. One JSON object a day is printed.

    \b
    Example:
      dssm land configs/globo.yaml --day 2017-10-06 --day 2017-10-07
    """
    from dssm_core.config import read_config
    from dssm_core.data import landing

    settings = read_config(config, data)
    for midnight in midnights:
        day = midnight.date()
        landing.check_day_is_over(settings, day, now())
        landed, changed = landing.land(settings, day, days.resolve())
        row = {"day": str(landed.day), "key": landed.key, "rows": landed.rows, "changed": changed}
        click.echo(json.dumps(row))
