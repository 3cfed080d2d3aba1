"""The items of the other events of the batch; popular items are candidates most often."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, ClassVar

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from dssm_core.config import Config
from dssm_core.features.events import Events, training_events
from dssm_core.features.interactions import Interactions
from dssm_core.sampling.samplers.protocol import (
    Bucket,
    FittedIds,
    Tables,
    categorical,
    share_of,
    tally,
)


class Streaming(BaseModel):
    """The streaming estimate of an item's frequency (Yi et al. 2019, algorithm 2): one over a
    moving average of the gap between its events. One event is one step.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)
    step: Annotated[float, Field(gt=0, le=1)] = 0.01
    """Weight of the newest gap. An item's first gaps are averaged evenly, until 1 / (their number)
    is below this."""
    slots: Annotated[int, Field(ge=1)] | None = None
    """Number of cells that items share by a hash; null gives each item its own cell."""


class InBatch(BaseModel):
    """The batch's own positives (Yi et al. 2019), each with its share of the bucket's events as
    probability.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)
    own: ClassVar[bool] = False
    even: ClassVar[bool] = False
    draws_positives: ClassVar[bool] = True
    from_batch: ClassVar[bool] = True
    fixed_shapes: ClassVar[bool] = True
    same_for_all: ClassVar[bool] = False
    ignores: ClassVar[tuple[str, ...]] = ("train.negatives",)
    streaming: Streaming | None = None
    """Take the probability from the streaming estimate instead, as it is after the bucket's last
    event; null takes exact counts. The estimate runs over the events in time order when tables are
    fitted."""

    def problems(self, config: Config) -> Iterator[str]:
        """Targets for which the batch's distribution is not known."""
        if config.train.target != "next":
            yield (
                "in-batch candidates have no exact log-Q under train.target"
                f" {config.train.target!r}: take sampler uniform, or target next"
            )

    def files(self) -> dict[str, Path]:
        """None: only the log is read."""
        return {}

    def fit(self, log: Interactions, as_of: Tensor, ids: FittedIds) -> Tables:
        """Each bucket's training events by item."""
        events = training_events(log, as_of)
        bucket, item, counts = tally(events.bucket, events.item, torch.ones(len(events.item)))
        tables = categorical(bucket, item, counts, buckets=len(as_of))
        if not self.streaming:
            return tables
        return tables | {"share": 1 / gaps(self.streaming, events, bucket, item, len(log.created))}

    def draw(
        self, tables: Tables, bucket: Bucket, count: int, events: Events, generator: torch.Generator
    ) -> Tensor:
        """The batch's positives, as many as there are. → [B]."""
        return events.item

    def log_q(self, tables: Tables, bucket: Bucket, items: Tensor, events: Events) -> Tensor:
        """items: any shape → the same."""
        return share_of(tables, bucket, items).log().float()


def gaps(settings: Streaming, events: Events, bucket: Tensor, item: Tensor, codes: int) -> Tensor:
    """Estimated events between two of an item, after the last event of each (bucket, item). bucket,
    item: [n] → [n] float64.

    events: in time order, so buckets ascend; codes: items and the unknown.
    """
    from dssm_core.sampling.samplers.numba_kernels import moving_gaps

    slots = settings.slots or codes
    cell = (
        events.item * 0x9E3779B1 % slots if settings.slots else events.item
    )  # Knuth's multiplicative hash
    key = item * 0x9E3779B1 % slots if settings.slots else item
    gap = torch.from_numpy(
        moving_gaps(cell.numpy(), slots, settings.step)
    )  # [events], the cell's estimate after each
    order = (events.bucket * slots + cell).argsort(stable=True)
    last = (
        torch.searchsorted((events.bucket * slots + cell)[order], bucket * slots + key, right=True)
        - 1
    )
    return gap[order[last]]
