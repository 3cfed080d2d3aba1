"""One update of the towers from a batch, and the same update as a CUDA graph.

An update launches hundreds of small kernels, and launching them takes a GPU longer than running
them. A CUDA graph launches all of them at once. It needs the same shapes and memory each time, so
there is a graph for each size of a batch (`Rows.sizes`).
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from dssm_core.config import Train
from dssm_core.models.two_tower import TwoTower
from dssm_core.training.epoch_order import Rows
from dssm_core.training.objective import Objective
from dssm_core.training.optimizers import Optimizers
from dssm_core.training.ranks import ALONE, Ranks

log = logging.getLogger(__name__)

NOT_CAPTURED = (
    "the kernels of a step are launched one by one, without a CUDA graph, because shapes of %s"
    " depend on values"
)


class Update:
    """Loss, gradients, a step of the optimizers and of the average. Call it with a batch.

    Numbers that change from step to step are in tensors (the learning rate) or in the state of the
    generators (draws and dropout), so that a graph of the update reads them too.
    """

    def __init__(
        self,
        objective: Objective,
        model: TwoTower,
        optimizers: Optimizers,
        settings: Train,
        generator: torch.Generator,
        ranks: Ranks = ALONE,
    ) -> None:
        device = generator.device
        bf16 = settings.precision == "bf16" or (
            settings.precision == "auto" and device.type == "cuda"
        )
        self.autocast = torch.autocast(device.type, dtype=torch.bfloat16, enabled=bf16)
        self.objective = objective
        self.model = model
        self.optimizers = optimizers
        self.settings = settings
        self.generator = generator
        self.ranks = ranks
        self.compute: Callable[[Rows], Tensor] = self._compute
        changing = objective.parts_of_changing_shapes + optimizers.parts_of_changing_shapes
        if device.type == "cuda" and changing:
            log.info(NOT_CAPTURED, ", ".join(changing))
        elif device.type == "cuda":
            pool = torch.cuda.graph_pool_handle()
            self.compute = Graphs(self._compute, partial(capture, generator=generator, pool=pool))

    def __call__(self, rows: Rows, seed: int, learning_rate: float, first: bool) -> Tensor:
        """Update from one batch. Returns its detached loss, without waiting for the device. → [].

        seed: of draws and dropout. first: whether the average starts from the weights after it.
        """
        self.optimizers.set_learning_rate(learning_rate)
        self.generator.manual_seed(seed)
        torch.manual_seed(seed + self.ranks.rank)  # for dropout
        loss = self.compute(rows)
        if first:
            self._average(weight=1.0)
        return loss

    def _compute(self, rows: Rows) -> Tensor:
        with self.autocast:
            loss = self.objective(self.model, rows, self.generator)
        self.model.zero_grad(set_to_none=True)
        loss.backward()
        loss = self.ranks.add_up(self.model, loss.detach())
        torch.nn.utils.clip_grad_norm_(self.optimizers.dense, self.settings.clip_norm)
        self.optimizers.step()
        self._average(1 - self.settings.ema_decay)
        return loss

    @torch.no_grad()
    def _average(self, weight: float) -> None:
        """Move the averaged weights toward the weights."""
        torch._foreach_lerp_(self.optimizers.averaged, self.optimizers.dense, weight)


@dataclass(frozen=True)
class Captured:
    """A captured update. at: [B], the rows that it reads. loss: [], what it writes."""

    graph: torch.cuda.CUDAGraph
    at: Tensor
    loss: Tensor

    def __call__(self, rows: Rows) -> Tensor:
        """Update from one batch of the captured sizes."""
        self.at.copy_(rows.at)
        self.graph.replay()
        return self.loss.clone()  # the next graph uses the same memory


def capture(
    update: Callable[[Rows], Tensor],
    rows: Rows,
    generator: torch.Generator,
    pool: Any,
) -> Captured:
    """Record the kernels of an update, without running them. pool: the memory of other graphs.

    A graph reads the state of its generators when it is replayed, so that each replay draws from
    the seed of its step. torch registers its default generator itself.
    """
    graph = torch.cuda.CUDAGraph()
    graph.register_generator_state(generator)
    at = rows.at.clone()
    with torch.cuda.graph(graph, pool=pool):
        loss = update(replace(rows, at=at))
    return Captured(graph, at, loss)


class Graphs:
    """Updates by graphs, one for each size of a batch.

    The first batch of a size is computed kernel by kernel, which makes what is made once: plans of
    libraries, the states of the optimizers. A graph is captured at the second one.
    """

    def __init__(
        self,
        update: Callable[[Rows], Tensor],
        capture: Callable[[Callable[[Rows], Tensor], Rows], Callable[[Rows], Tensor]],
    ) -> None:
        self.update = update
        self.capture = capture
        self.by_sizes: dict[tuple[int, int, int], Callable[[Rows], Tensor] | None] = {}

    def __call__(self, rows: Rows) -> Tensor:
        """Update from one batch."""
        if rows.sizes not in self.by_sizes:
            self.by_sizes[rows.sizes] = None
            return self.update(rows)
        known = self.by_sizes[rows.sizes] or self._captured(rows)
        return known(rows)

    def _captured(self, rows: Rows) -> Callable[[Rows], Tensor]:
        """The graph of the batch's sizes, or the update itself if it cannot be captured."""
        try:
            graph = self.capture(self.update, rows)
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            log.warning(
                "an update of sizes %s cannot be captured in a CUDA graph, so its kernels are"
                " launched one by one, which is slower: %s",
                rows.sizes,
                str(error).partition("\n")[0],
            )
            graph = self.update
        self.by_sizes[rows.sizes] = graph
        return graph
