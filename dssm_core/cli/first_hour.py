"""`dssm init` proposes a config for a log, `dssm check` reports what a run would find."""

from __future__ import annotations

import tempfile
from datetime import datetime
from pathlib import Path

import click

from dssm_core.cli import screen
from dssm_core.cli.terminal import CONFIG, DATA, SET, TEST_DAY, errors_only, test_day_setting
from dssm_core.errors import ConfigError


@click.command(short_help="Propose a config for a log that it looks at.")
@click.argument("path", metavar="FOLDER_OR_FILE", type=click.Path(path_type=Path))
@click.option(
    "--to",
    "file",
    type=click.Path(dir_okay=False, path_type=Path),
    help="File to write. By default NAME.yaml, in configs/ if there is such a folder.",
)
@click.option("--name", help="Name of the dataset. By default that of the folder or file.")
@click.option("--user", metavar="COLUMN", help="Column of the users.")
@click.option("--item", metavar="COLUMN", help="Column of the items.")
@click.option("--time", metavar="COLUMN", help="Column of the times.")
@click.option("--force", is_flag=True, help="Replace the file if it exists.")
def init(
    path: Path,
    file: Path | None,
    name: str | None,
    user: str | None,
    item: str | None,
    time: str | None,
    force: bool,
) -> None:
    """Look at the log in FOLDER_OR_FILE and write a YAML file for it, with comments.

    It reads delimited text, plain or .gz, JSON lines and Parquet. It guesses columns, formats,
    features, split and list lengths; what it is unsure of is marked CHECK in the file and listed in
    the terminal.

    \b
    Examples:
      dssm init /data/clicks
      dssm init /data/clicks --user visitor --item sku --to configs/shop.yaml
    """
    from dssm_core.inspection.proposal import name_of, propose
    from dssm_core.runs.files import write_atomically

    name = name or name_of(path)
    if file is None:
        file = Path("configs" if Path("configs").is_dir() else ".") / f"{name}.yaml"
    if file.exists() and not force:
        raise ConfigError(f"{str(file)!r} exists: give another file with --to, or --force")
    columns = {"user_id": user, "item_id": item, "timestamp": time}
    chosen = {key: column for key, column in columns.items() if column is not None}
    proposal = propose(path, name, chosen)
    write_atomically(file, proposal.text.encode())
    screen.print_proposal(proposal, file)


@click.command(short_help="Report what a run would find, before it trains.")
@CONFIG
@DATA
@TEST_DAY
@SET
def check(
    config: Path, data: str | None, test_day: datetime | None, overrides: tuple[str, ...]
) -> None:
    """Read the log of CONFIG and report what a run would find before it trains.

    It runs the steps up to sample_negatives in a temporary folder, and measures the simple
    baselines on the test set. Of a large log it takes all rows of a sample of users, and says so.
    The exit status is 1, with the error of the run, if a run would be refused.

    \b
    Examples:
      dssm check configs/my-log.yaml
      dssm check configs/globo.yaml --data /data/globo/clicks --test-day 2017-10-07
    """
    from dssm_core.config import read_config
    from dssm_core.inspection.check import check as find

    settings = read_config(config, data, (*overrides, *test_day_setting(test_day)))
    with errors_only(), tempfile.TemporaryDirectory() as folder:  # the report has the warnings
        findings = find(settings, Path(folder), screen.print_step_start)
    screen.print_findings(findings, settings.gate.metric)
