"""The other events' items: no drawing at all, popular items drawn the most."""

from __future__ import annotations

from typing import ClassVar

import torch
from pydantic import BaseModel, ConfigDict
from torch import Tensor

from dssm_core.batches import Events, training_events
from dssm_core.features import Log
from dssm_core.samplers.protocol import FittedIds, Tables, categorical, share_of, tally


class InBatch(BaseModel):
    """The batch's own positives, each with its share of the bucket's events as probability (Yi et al. 2019, exact)."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    own: ClassVar[bool] = False

    def fit(self, log: Log, as_of: Tensor, ids: FittedIds) -> Tables:
        """Each bucket's training events by item."""
        events = training_events(log, as_of)
        return categorical(*tally(events.bucket, events.item, torch.ones(len(events.item))), buckets=len(as_of))

    def draw(self, tables: Tables, bucket: int, count: int, events: Events, generator: torch.Generator) -> Tensor:
        """The batch's positives, as many as there are. → [B]."""
        return events.item

    def log_q(self, tables: Tables, bucket: int, items: Tensor, events: Events) -> Tensor:
        """items: any shape → the same."""
        return share_of(tables, bucket, items).log().float()
