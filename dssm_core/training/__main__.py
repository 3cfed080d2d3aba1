"""`torchrun -m dssm_core.training RUN`: the step `train_towers` on several machines."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import click

from dssm_core.errors import ConfigError, DssmError
from dssm_core.families import named
from dssm_core.runs.pipeline import run_step
from dssm_core.runs.run import Run, open_run
from dssm_core.runs.table import find_step
from dssm_core.training.processes import (
    OWN_STORE,
    announce,
    announced,
    check_gpus,
    process_group,
)
from dssm_core.training.ranks import Ranks
from dssm_core.training.train_towers import train

STEP = "train_towers"


@click.command()
@click.argument("folder", metavar="RUN", type=click.Path(path_type=Path))
def main(folder: Path) -> None:
    """Execute the step train_towers in the processes that torchrun has started: as many as
    train.processes, over all machines. RUN is the folder of the run, under the same path on all of
    them. A step that is done is not executed again.

    \b
    Example, on each of two machines with four GPUs, for train.processes: 8:
      export TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1
      torchrun --nnodes 2 --nproc-per-node 4 --max-restarts 3 --rdzv-backend c10d
        --rdzv-endpoint HOST:29400 -m dssm_core.training runs/demo/2024-03-07/ID
    """
    try:
        run = open_run(folder)
        check(run)
        with process_group(run.config.train) as ranks:
            _take_part(run, ranks)
    except DssmError as error:
        raise click.ClickException(str(error)) from error


def check(run: Run) -> None:
    """Raise ConfigError unless torchrun has started `train.processes` processes, on machines that
    have a GPU for each of theirs, and can restart them.
    """
    settings = run.config.train
    started = int(os.environ.get("WORLD_SIZE", "0"))
    if started != settings.processes:
        raise ConfigError(
            f"torchrun has started {started} processes, and train.processes of this run is"
            f" {settings.processes}: start {settings.processes}, or make a run with"
            f" train.processes={max(1, started)}"
        )
    check_gpus(settings, int(os.environ["LOCAL_WORLD_SIZE"]))
    restarts = int(os.environ.get("TORCHELASTIC_MAX_RESTARTS", "0"))
    if restarts and os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True":
        raise ConfigError(
            f"set {OWN_STORE}=1 where torchrun starts: else restarted processes cannot connect to"
            " each other (pytorch/pytorch#135712)"
        )


def _take_part(run: Run, ranks: Ranks) -> None:
    """Execute the step as the first rank, or help to train whenever it announces a training."""
    if ranks.first:
        logging.basicConfig(level=logging.INFO, format="%(message)s")
        click.echo(run_step(run, STEP).model_dump_json(include={"step", "rows", "info", "seconds"}))
        announce(None)
        return
    live_logger = named(find_step(STEP).passes["live_logger"])
    while work := announced():
        train(run, work, live_logger, ranks)


if __name__ == "__main__":
    main()
