"""What others read of a champion: `dssm publish` its embeddings, `dssm refresh` its index."""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path

import click

from dssm_core.cli.terminal import CONFIG, DATA, RUNS, now, utc_ms


@click.command(short_help="Write embeddings and lists to a folder or to Redis.")
@click.argument("model")
@click.option(
    "--to",
    "target",
    required=True,
    metavar="TARGET",
    help="A folder, or redis://HOST:PORT/DATABASE.",
)
@click.option("--version", help="Version or alias to publish. Default: the champion.")
@click.option(
    "--lists",
    "k",
    type=click.IntRange(1, 10_000),
    metavar="K",
    help="Also write the K best items of every user, by the model's own filters.",
)
@RUNS
def publish(model: str, target: str, version: str | None, k: int | None, runs_folder: Path) -> None:
    """Write the user and item embeddings of MODEL to a folder or to Redis.

    Readers see everything of a version or nothing of it.

    \b
    Examples:
      dssm publish dssm-demo --to published
      dssm publish dssm-demo --to published --lists 200
      dssm publish dssm-demo --to redis://localhost:6379/0 --version 3
    """
    from dssm_core.operation.publish import publish_registered
    from dssm_core.registry.versions import open_model

    store = open_model(model, runs_folder)
    published = publish_registered(store, version, target, k, utc_ms(now()))
    click.echo(json.dumps(published))


@click.command(short_help="Rebuild the champion's index from new clicks.")
@CONFIG
@click.option(
    "--as-of",
    type=click.DateTime(["%Y-%m-%dT%H:%M", "%Y-%m-%dT%H:%M:%S"]),
    metavar="YYYY-MM-DDTHH:MM",
    help="Time up to which clicks count, in UTC. Default: now.",
)
@click.option("--version", help="Version to refresh. Default: the champion.")
@DATA
@click.option(
    "--days",
    type=click.Path(path_type=Path),
    help="Folder of landed days (see `dssm land`). Past days are read from it if it has them.",
)
@click.option(
    "--to",
    "target",
    envvar="DSSM_REFRESHED",
    default="refreshed",
    show_default=True,
    show_envvar=True,
    type=click.Path(path_type=Path),
    help="Folder of the refreshed bundles.",
)
@RUNS
def refresh(
    config: Path,
    as_of: datetime | None,
    version: str | None,
    data: str | None,
    days: Path | None,
    target: Path,
    runs_folder: Path,
) -> None:
    """Rebuild the champion's index from the latest clicks, without training.

    The towers of CONFIG's champion stay as they are. User embeddings, new items and the activity
    of all items are computed as of the given time. TO/MODEL/current then points to the new
    bundle in one step; its lineage.json says from which version and clicks it was made. A
    summary of it is printed as JSON.

    \b
    Example:
      dssm refresh configs/globo.yaml --data /data/globo/clicks --as-of 2017-10-08T12:00
    """
    from dssm_core.config import read_config
    from dssm_core.operation import refresh as refreshing
    from dssm_core.registry.versions import open_model

    settings = read_config(config, data)
    at = now()
    lineage = refreshing.refresh_registered(
        open_model(settings.model_name, runs_folder),
        version,
        settings,
        refreshing.past_ms(as_of or at, at),
        target.resolve(),
        days.resolve() if days else None,
    )
    click.echo(json.dumps(refreshing.without_file_names(lineage)))
