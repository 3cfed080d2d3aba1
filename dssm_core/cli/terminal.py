"""What the commands share: the terminal, the clock, common options, errors as one sentence."""

from __future__ import annotations

import getpass
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from glob import escape
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.logging import RichHandler

from dssm_core.errors import ConfigError, DssmError

HELP_OPTIONS = {"help_option_names": ["-h", "--help"]}
DEFAULT_RUNS = "runs"
LISTED = 5  # runs in a message
console = Console(stderr=True)

CONFIG = click.argument("config", type=click.Path(path_type=Path))
DATA = click.option(
    "--data",
    metavar="PATH",
    help="Folder or file of the click log. Replaces data.source.path of the config.",
)
SET = click.option(
    "--set",
    "overrides",
    multiple=True,
    metavar="KEY.PATH=VALUE",
    help="Replace a setting, e.g. --set train.epochs=3. Repeat it for several settings.",
)
TEST_DAY = click.option(
    "--test-day",
    type=click.DateTime(["%Y-%m-%d"]),
    metavar="YYYY-MM-DD",
    help="First test day. Replaces split.test_day of the config.",
)


class RunFolder(click.ParamType[Path]):
    """The folder of a run, or the start of an id that only one run in the folder of runs has."""

    name = "run"

    def convert(
        self, value: Any, param: click.Parameter | None, context: click.Context | None
    ) -> Path:
        """The folder. A text that is neither stays a path, which the command refuses."""
        path = Path(value)
        params = context.params if context else {}
        runs = params.get("runs_folder") or os.environ.get("DSSM_RUNS") or DEFAULT_RUNS
        found = [] if path.exists() else sorted(Path(runs).glob(f"*/*/{escape(str(value))}*"))
        if len(found) > 1:
            names = ", ".join(str(run.relative_to(runs)) for run in found[:LISTED])
            self.fail(f"{value!r} is the start of several runs ({names}): give more of the id")
        return found[0] if found else path


RUN_FOLDER = click.option(
    "--run",
    "folder",
    required=True,
    type=RunFolder(),
    metavar="RUN",
    help="Folder of the run, or its id or the start of it in $DSSM_RUNS (default: runs). `dssm"
    " runs` lists the runs.",
)
RUNS = click.option(
    "--runs",
    "runs_folder",
    envvar="DSSM_RUNS",
    default=DEFAULT_RUNS,
    show_default=True,
    show_envvar=True,
    is_eager=True,  # `--run` looks for an id in it
    type=click.Path(path_type=Path),
    help="Folder of all runs.",
)
MODEL = click.argument("model", required=False)
VERSION = click.option("--version", help="Version or alias of MODEL to use. Default: the champion.")
INSTEAD_OF_MODEL = click.option(
    "--run",
    "folder",
    type=RunFolder(),
    metavar="RUN",
    help="Run to use instead of MODEL: its folder, its id or the start of it. It need not be"
    " registered.",
)
BY = click.option(
    "--by", default=getpass.getuser, show_default="your user name", help="Who decides."
)


def test_day_setting(test_day: datetime | None) -> tuple[str, ...]:
    """The option --test-day as settings that are laid over the config."""
    return (f"split.test_day={test_day.date()}",) if test_day else ()


def utc_ms(at: datetime) -> int:
    """A time as ms since 1970; one without a zone is in UTC."""
    return round((at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp() * 1000)


def now() -> datetime:
    """The time of the call, in UTC. Commands pass it to the library, which reads no clock."""
    return datetime.now(UTC)


def model_or_run(model: str | None, folder: Path | None, runs_folder: Path) -> Any:
    """The registered model or the run that a command is given. Raises ConfigError unless exactly
    one of them is.
    """
    from dssm_core.registry.versions import open_model
    from dssm_core.runs.run import open_run

    if folder and model is None:
        return open_run(folder)
    if folder or model is None:
        raise ConfigError(
            "give the name of a registered MODEL, or a run's folder with --run: "
            "`dssm runs` lists both"
        )
    return open_model(model, runs_folder)


@contextmanager
def errors_as_sentences(context: click.Context) -> Iterator[None]:
    """Print an error of this library as one sentence on stderr, without a traceback, and exit
    with status 1.
    """
    try:
        yield
    except DssmError as error:
        console.print(f"[red]{type(error).__name__}[/]", end=": ")
        console.print(str(error), markup=False, highlight=False, soft_wrap=True)
        context.exit(1)


class Command(click.Command):
    """A command that prints errors of this library as one sentence."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command."""
        with errors_as_sentences(ctx):
            return super().invoke(ctx)


class Group(click.Group):
    """Commands in the order in which they are added; errors are printed as one sentence."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The names in the order of the pipeline, not of the alphabet."""
        return list(self.commands)

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command of the group."""
        with errors_as_sentences(ctx):
            return super().invoke(ctx)


def log_to_terminal(verbose: bool) -> None:
    """Send the log of this library to stderr, with every training point if `verbose`."""
    handler = RichHandler(
        console=console, show_path=False, markup=False, highlighter=None, rich_tracebacks=True
    )
    logging.basicConfig(
        level=logging.WARNING, format="%(message)s", datefmt="%H:%M:%S", handlers=[handler]
    )
    logging.getLogger("dssm_core").setLevel(logging.DEBUG if verbose else logging.INFO)


@contextmanager
def errors_only() -> Iterator[None]:
    """Leave out what this library logs below ERROR."""
    logger = logging.getLogger("dssm_core")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
