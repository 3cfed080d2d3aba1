"""`dssm settings`: the settings of a config, with type, default, unit and meaning."""

from __future__ import annotations

from difflib import get_close_matches

import click

from dssm_core.cli.terminal import Command
from dssm_core.errors import ConfigError


@click.command(cls=Command, short_help="Explain the settings of a config.")
@click.argument("key", default="")
@click.option("--schema", is_flag=True, help="Print a JSON schema of config files for editors.")
@click.option("--markdown", is_flag=True, help="Print the page docs/settings.md.")
def settings(key: str, schema: bool, markdown: bool) -> None:
    """Print what KEY sets, or all settings of the section KEY, or every setting if there is no KEY.

    The settings of the members of a family, such as losses, are at the key where a config chooses
    one.

    \b
    Example:
      dssm settings train.negatives
      dssm settings features.history
      dssm settings loss
      dssm settings --schema > configs/schema.json
    """
    from dssm_core.config import describe
    from dssm_core.config.schema import schema_text

    if schema:
        click.echo(schema_text(), nl=False)
        return
    groups = describe.all_groups()
    if markdown:
        click.echo(describe.page(groups), nl=False)
        return
    matches = describe.matching(groups, key) if key else groups
    if not matches:
        paths = sorted({setting.path for group in groups for setting in group.settings})
        close = get_close_matches(key, paths, n=1)
        hint = f"did you mean {close[0]!r}?" if close else "`dssm settings` lists all settings"
        raise ConfigError(f"unknown setting {key!r}: {hint}")
    for line in describe.plain(matches):
        click.echo(line)
