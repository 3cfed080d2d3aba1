"""The processes of a training: torch's elastic launcher starts them, and they form a group.

If a process fails, the launcher stops the others and starts all again, up to `RESTARTS` times: they
go on from the checkpoint. A process that waits too long for another one fails. An error that no
restart can change ends the training at once.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import tempfile
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist

from dssm_core import errors
from dssm_core.config import Train
from dssm_core.errors import ConfigError, DssmError, ServiceError, shorten
from dssm_core.runs.files import write_atomically
from dssm_core.runs.manifest import Outcome
from dssm_core.runs.run import Run
from dssm_core.training.device import choose_device
from dssm_core.training.ranks import Ranks

if TYPE_CHECKING:
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

log = logging.getLogger(__name__)

RESTARTS = 3  # of all processes
REFUSAL_FILE = "refusal.json"  # in the step's folder: an error that no restart can change
# A restarted process would else meet the addresses of the attempt before: pytorch/pytorch#135712.
OWN_STORE = "TORCH_DISABLE_SHARE_RDZV_TCP_STORE"
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT)


def launch(train: Callable[..., Outcome], run: Run, work: Path, live_logger: Any) -> Outcome:
    """Call `train(run, work, live_logger, ranks)` in `train.processes` processes on this machine.
    Returns the outcome of the first rank.

    Raises ConfigError if there are fewer GPUs than processes, the error of a process that no
    restart can change, and ServiceError if the processes also fail after `RESTARTS` restarts.
    """
    from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    settings = run.config.train
    check_gpus(settings, settings.processes)
    refusal = work / REFUSAL_FILE
    refusal.unlink(missing_ok=True)
    os.environ[OWN_STORE] = "1"
    with tempfile.TemporaryDirectory() as logs, _signal_handlers_kept():
        config = LaunchConfig(
            min_nodes=1,
            max_nodes=1,
            nproc_per_node=settings.processes,
            run_id=uuid.uuid4().hex,
            rdzv_backend="c10d",
            rdzv_endpoint="localhost:0",
            local_addr="localhost",
            max_restarts=RESTARTS,
            logs_specs=DefaultLogsSpecs(logs),
        )
        level = logging.getLogger().getEffectiveLevel()
        try:
            outcomes = elastic_launch(config, _rank)(train, run.root, work, live_logger, level)
        except ChildFailedError as error:
            raise ServiceError(_failure(error, settings)) from error
    if refusal.is_file():
        raise _read(refusal)
    outcome: Outcome = outcomes[0]
    return outcome


@contextmanager
def process_group(settings: Train) -> Iterator[Ranks]:
    """The group of the processes that torch's launcher has started; NCCL on GPUs, else gloo. Its
    collectives fail after `train.rank_timeout_s`.
    """
    on_gpu = choose_device(settings.device).type == "cuda"
    local = int(os.environ["LOCAL_WORLD_SIZE"])
    if on_gpu:
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    elif "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(max(1, torch.get_num_threads() // local))
    timeout = timedelta(seconds=settings.rank_timeout_s)
    dist.init_process_group("nccl" if on_gpu else "gloo", timeout=timeout)
    try:
        yield Ranks(dist.get_rank(), dist.get_world_size())
    finally:
        dist.destroy_process_group()


def check_gpus(settings: Train, processes: int) -> None:
    """Raise ConfigError if this machine has fewer GPUs than processes, unless it trains on CPUs."""
    if choose_device(settings.device).type == "cpu":
        return
    gpus = torch.cuda.device_count()
    if processes > gpus:
        raise ConfigError(
            f"{processes} processes (train.processes) need a GPU each, and torch sees {gpus}: set"
            f" train.processes to {gpus}, or train.device to cpu"
        )


def of_torchrun() -> bool:
    """Whether this process is a rank that torchrun has started (see `__main__`)."""
    return dist.is_initialized()


def announce(work: Path | None) -> Ranks:
    """Tell the other ranks of torchrun the folder to train in, or None if there is nothing more to
    train. Called by the first rank. Returns this rank.
    """
    dist.broadcast_object_list([work])
    return Ranks(dist.get_rank(), dist.get_world_size())


def announced() -> Path | None:
    """What the first rank announces. Called by the other ranks of torchrun."""
    received: list[Path | None] = [None]
    dist.broadcast_object_list(received)
    return received[0]


def _rank(
    train: Callable[..., Outcome], root: Path, work: Path, live_logger: Any, level: int
) -> Outcome | None:
    """A process of the launcher. None if an earlier attempt met an error that no restart can
    change.
    """
    if (work / REFUSAL_FILE).is_file():
        return None
    run = Run(root)
    settings = run.config.train
    try:
        with process_group(settings) as ranks, _timeouts(settings, ranks):
            if ranks.first:
                logging.basicConfig(level=level, format="%(message)s")
            return train(run, work, live_logger, ranks)
    except DssmError as error:
        refusal = {"kind": type(error).__name__, "message": str(error)}
        write_atomically(work / REFUSAL_FILE, json.dumps(refusal).encode())
        raise


@contextmanager
def _timeouts(settings: Train, ranks: Ranks) -> Iterator[None]:
    """Say which process waited in vain for another one, and which setting limits the time."""
    try:
        yield
    except RuntimeError as error:
        if "timed out" not in str(error).lower():
            raise
        raise TimeoutError(
            f"process {ranks.rank} waited {settings.rank_timeout_s:g} s for another one of"
            f" {ranks.size}, which hangs or is too slow: raise train.rank_timeout_s if it is slow"
        ) from error


def _failure(error: ChildFailedError, settings: Train) -> str:
    """The sentence for processes that failed too often."""
    rank, failure = error.get_first_failure()
    message: Any = failure.message
    cause = message["message"] if isinstance(message, dict) else message
    return (
        f"process {rank} of {settings.processes} (train.processes) failed, also after {RESTARTS}"
        f" restarts: {shorten(cause)}. See its log above. The training goes on from its checkpoint"
        " if the step is run again"
    )


def _read(refusal: Path) -> DssmError:
    """The error that a process wrote. Removes the file."""
    stored = json.loads(refusal.read_bytes())
    refusal.unlink()
    error: DssmError = getattr(errors, stored["kind"])(stored["message"])
    return error


@contextmanager
def _signal_handlers_kept() -> Iterator[None]:
    """Restore the handlers of signals, which the launcher replaces."""
    in_main = threading.current_thread() is threading.main_thread()
    handlers = {number: signal.getsignal(number) for number in SIGNALS} if in_main else {}
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
