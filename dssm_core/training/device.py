"""The device of a training: which one, whether it gives the same numbers twice, and its memory."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.utils import deterministic as determinism

from dssm_core import families
from dssm_core.config import Config
from dssm_core.errors import ConfigError
from dssm_core.families import LOSSES
from dssm_core.features.dataset import Prepared
from dssm_core.models.two_tower import TwoTower
from dssm_core.sampling.sampler_tables import samplers_of
from dssm_core.training.fused_cross_entropy import LOGITS_AT_ONCE
from dssm_core.training.logits import BatchVectors
from dssm_core.training.losses.protocol import Loss

CUBLAS = "CUBLAS_WORKSPACE_CONFIG"  # cuBLAS reads it before its first product
FILL = "fill_uninitialized_memory"
GIB = 1 << 30
FLOAT = 4  # bytes
CODES = 6  # numbers as large as a float that the codes and places of a candidate are


def choose_device(name: str) -> torch.device:
    """The device of `train.device`. Raises ConfigError if it is `cuda` and there is no GPU."""
    has_gpu = torch.cuda.is_available()
    if name == "cuda" and not has_gpu:
        raise ConfigError(
            "train.device is 'cuda' but torch sees no GPU: set train.device to auto or cpu"
        )
    return torch.device("cuda" if name != "cpu" and has_gpu else "cpu")


@contextmanager
def deterministic(enabled: bool) -> Iterator[None]:
    """Let a GPU use kernels that give the same result each time. The settings of the process are
    as before afterwards.
    """
    if not enabled:
        yield
        return
    algorithms = torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    fill = getattr(determinism, FILL)
    workspace = os.environ.get(CUBLAS)
    os.environ[CUBLAS] = workspace or ":4096:8"
    torch.use_deterministic_algorithms(True)
    setattr(determinism, FILL, False)  # no code here reads memory before writing it
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(algorithms, warn_only=warn_only)
        setattr(determinism, FILL, fill)
        if workspace is None:
            del os.environ[CUBLAS]


@contextmanager
def device_errors(config: Config, prepared: Prepared) -> Iterator[None]:
    """Raise ConfigError, which is never retried, if a GPU has no memory left, or has no
    deterministic kernel for an operation.
    """
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise ConfigError(
            f"the GPU has no memory left for a step ({str(error).partition('. ')[0]})."
            f" {_arithmetic(memory_parts(config, prepared))}"
        ) from error
    except RuntimeError as error:
        if "deterministic implementation" not in str(error):
            raise
        raise ConfigError(
            f"{str(error).partition('.')[0]}: set train.deterministic to false"
        ) from error


@dataclass(frozen=True)
class MemoryPart:
    """Memory that a training needs at least. setting: what makes it smaller."""

    size: int  # bytes
    text: str
    setting: str


def check_memory(config: Config, prepared: Prepared, available: int) -> None:
    """Raise ConfigError if a training cannot fit into a GPU. available: bytes of the whole GPU."""
    parts = memory_parts(config, prepared)
    needed = sum(part.size for part in parts)
    if needed > available:
        raise ConfigError(
            f"training needs at least {needed / GIB:.1f} GiB, but the GPU has"
            f" {available / GIB:.1f} GiB. {_arithmetic(parts)}"
        )


def memory_parts(config: Config, prepared: Prepared) -> list[MemoryPart]:
    """What takes memory on the device, without the activations of the towers."""
    return [_parameters(config, prepared), _data(prepared), *_batch(config, prepared)]


def _parameters(config: Config, prepared: Prepared) -> MemoryPart:
    with torch.device("meta"):  # shapes without memory
        model = TwoTower(config, prepared.schema, prepared.items)
    tables = [part.weight for part in model.modules() if isinstance(part, nn.Embedding)]
    large = sum(table.numel() for table in tables if len(table) > config.train.sparse_rows)
    dense = sum(parameter.numel() for parameter in model.parameters()) - large
    # weights, average, gradients and two moments; large tables have no average and no gradients
    return MemoryPart(
        (5 * dense + 3 * large) * FLOAT,
        f"parameters (5 x {dense:,} numbers, and 3 x {large:,} of tables above train.sparse_rows)",
        "features.id_dim, model.dim, features.user_id_dim",
    )


def _data(prepared: Prepared) -> MemoryPart:
    tables = [*vars(prepared.log).values()]
    for table in (prepared.users, prepared.items):
        tables += [table.categorical, table.multi, table.numeric]
    size = sum(table.nbytes for table in tables if isinstance(table, Tensor))
    return MemoryPart(size, "log and columns", "split.train_days")


def _batch(config: Config, prepared: Prepared) -> list[MemoryPart]:
    """Item vectors with their gradients, and logits."""
    events = min(config.train.batch_size, len(prepared.log.item))
    loss: Loss = families.build(LOSSES, config.loss)
    samplers = samplers_of(config).values()
    own = any(sampler.own for sampler in samplers)
    drawn = [events if sampler.from_batch else config.train.negatives for sampler in samplers]
    candidates = prepared.schema.items if loss.whole_catalogue else sum(drawn)
    events = -(-events // config.train.processes)  # each process has its part
    logits = events * candidates
    vectors = events + candidates
    held = min(logits, LOGITS_AT_ONCE["cuda"]) if not own and _in_chunks(loss) else 3 * logits
    if own:  # see _of_events in training/objective.py
        distinct = min(prepared.schema.items, logits)
        by_place = distinct <= candidates * config.model.dim
        vectors = events + (distinct if by_place else logits)
        held += CODES * logits + (2 * events * distinct if by_place else 0)
    return [
        MemoryPart(
            2 * vectors * config.model.dim * FLOAT,
            f"item vectors and their gradients (2 x {vectors:,} x {config.model.dim})",
            "train.negatives, train.batch_size, model.dim",
        ),
        MemoryPart(
            held * FLOAT,
            f"logits ({held:,} numbers of {events:,} events x {candidates:,} candidates)",
            "train.batch_size, train.negatives",
        ),
    ]


def _in_chunks(loss: Loss) -> bool:
    """Whether the loss never holds all logits: what it says of one event and one candidate."""
    vector, code, zero = torch.ones(1, 1), torch.ones(1, dtype=torch.int64), torch.zeros(1)
    one = BatchVectors(vector, vector, vector, torch.ones(()), code, code + 1, zero, zero, 2)
    return loss.fused(one) is not None


def _arithmetic(parts: list[MemoryPart]) -> str:
    """The parts, largest first, and the setting that makes the largest one smaller."""
    ordered = sorted(parts, key=lambda part: -part.size)
    listed = ", ".join(f"{part.text} {part.size / GIB:.2f} GiB" for part in ordered)
    return f"At least: {listed}. Lower {ordered[0].setting}"
