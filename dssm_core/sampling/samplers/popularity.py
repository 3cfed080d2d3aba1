"""By popularity in the whole window, smoothed by an exponent: the sampler of word2vec."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, ClassVar

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from dssm_core.features.events import Events
from dssm_core.features.interactions import Interactions
from dssm_core.sampling.samplers.protocol import (
    Bucket,
    FittedIds,
    Tables,
    categorical,
    draw_categorical,
    share_of,
)


class Popularity(BaseModel):
    """In proportion to clicks ** alpha in the train window (Mikolov et al. 2013)."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)
    own: ClassVar[bool] = False
    even: ClassVar[bool] = False
    draws_positives: ClassVar[bool] = True
    from_batch: ClassVar[bool] = False
    fixed_shapes: ClassVar[bool] = True
    same_for_all: ClassVar[bool] = True
    ignores: ClassVar[tuple[str, ...]] = ()
    alpha: Annotated[float, Field(ge=0)] = 0.75
    """Exponent of the clicks: 1 is popularity itself, 0 is uniform."""

    def files(self) -> dict[str, Path]:
        """None: only the log is read."""
        return {}

    def fit(self, log: Interactions, as_of: Tensor, ids: FittedIds) -> Tables:
        """One distribution over the window's items."""
        clicks = torch.bincount(log.item, minlength=len(log.created)).double()
        items = clicks.nonzero().squeeze(1)
        return categorical(torch.zeros_like(items), items, clicks[items] ** self.alpha, buckets=1)

    def draw(
        self, tables: Tables, bucket: Bucket, count: int, events: Events, generator: torch.Generator
    ) -> Tensor:
        """[count] item codes, whatever the bucket."""
        return draw_categorical(tables, 0, count, generator)

    def log_q(self, tables: Tables, bucket: Bucket, items: Tensor, events: Events) -> Tensor:
        """items: any shape → the same."""
        return share_of(tables, 0, items).log().float()
