"""`dssm lookalike`: the users most like some seed users, or nearest to an item."""

from __future__ import annotations

import json
from pathlib import Path

import click

from dssm_core.cli.terminal import INSTEAD_OF_MODEL, MODEL, RUNS, VERSION, model_or_run


@click.command(short_help="Write the users most like some seed users.")
@MODEL
@VERSION
@INSTEAD_OF_MODEL
@click.option(
    "--seed",
    "seeds",
    multiple=True,
    metavar="USER_ID",
    help="Seed user. Repeat it for several users.",
)
@click.option(
    "--seeds",
    "seeds_file",
    type=click.Path(path_type=Path),
    help="File of seed users: .parquet or .csv with a column user_id, or text with one id a line.",
)
@click.option("--item", metavar="ITEM_ID", help="Item (such as an ad) to use instead of seeds.")
@click.option(
    "--top",
    default=1000,
    show_default=True,
    type=click.IntRange(1),
    help="Maximum number of users in the audience.",
)
@click.option("--keep-seeds", is_flag=True, help="Include the seed users in the audience.")
@click.option(
    "--to",
    "target",
    required=True,
    type=click.Path(path_type=Path),
    help="File to write, .parquet or .csv.",
)
@RUNS
def lookalike(
    model: str | None,
    version: str | None,
    folder: Path | None,
    seeds: tuple[str, ...],
    seeds_file: Path | None,
    item: str | None,
    top: int,
    keep_seeds: bool,
    target: Path,
    runs_folder: Path,
) -> None:
    """Write the users of MODEL most like some seed users, or nearest to an item, best first.

    The file has the columns user_id, score and rank. For seeds, the score is the mean cosine
    similarity to all of them; for an item, it is the score of the two towers. Seeds that the
    model does not know are left out; their number and some ids are printed. In a .csv
    file, an id that a spreadsheet would take for a formula begins with an apostrophe.

    \b
    Examples:
      dssm lookalike dssm-demo --seed 17 --seed 42 --to audience.csv
      dssm lookalike dssm-demo --seeds seeds.txt --top 5000 --to audience.parquet
      dssm lookalike --run runs/demo/2024-03-07/ID --item 301 --to audience.csv
    """
    from dssm_core.operation import lookalike as audiences
    from dssm_core.operation.opened import opened
    from dssm_core.operation.user_files import read_seeds

    source = model_or_run(model, folder, runs_folder)
    from_file = read_seeds(seeds_file) if seeds_file else []
    with opened(source, version) as (bundle, about):
        made = audiences.make_audience(bundle, target, top, seeds, item, not keep_seeds, from_file)
        click.echo(json.dumps(about | made))
