"""Popular and unpopular items in given shares."""

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
    by_frequency,
    categorical_of_all,
    draw_categorical,
    share_of,
)


class FrequencyBands(BaseModel):
    """Items in two bands by number of clicks. Within a band all items have the same probability; if
    one band is empty, all draws are from the other.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)
    own: ClassVar[bool] = False
    even: ClassVar[bool] = False
    draws_positives: ClassVar[bool] = True
    from_batch: ClassVar[bool] = False
    fixed_shapes: ClassVar[bool] = True
    same_for_all: ClassVar[bool] = True
    ignores: ClassVar[tuple[str, ...]] = ()
    high_clicks: Annotated[float, Field(gt=0, lt=1)] = 0.8
    """Share of all clicks that the most clicked items of the high band hold together."""
    high_draws: Annotated[float, Field(gt=0, lt=1)] = 0.5
    """Share of draws from the high band."""

    def files(self) -> dict[str, Path]:
        """None: only the log is read."""
        return {}

    def fit(self, log: Interactions, as_of: Tensor, ids: FittedIds) -> Tables:
        """One distribution over all items."""
        order, clicks = by_frequency(log)
        held = clicks[order].cumsum(0)
        high = (
            held - clicks[order] < self.high_clicks * held[-1]
        )  # [N], by rank: what came before does not hold enough yet
        sizes = high.sum(), (~high).sum()
        weight = torch.where(
            high,
            self.high_draws / sizes[0].clamp(min=1),
            (1 - self.high_draws) / sizes[1].clamp(min=1),
        )
        return categorical_of_all(torch.empty_like(weight).index_copy_(0, order, weight))

    def draw(
        self, tables: Tables, bucket: Bucket, count: int, events: Events, generator: torch.Generator
    ) -> Tensor:
        """[count] item codes, whatever the bucket."""
        return draw_categorical(tables, 0, count, generator)

    def log_q(self, tables: Tables, bucket: Bucket, items: Tensor, events: Events) -> Tensor:
        """items: any shape → the same."""
        return share_of(tables, 0, items).log().float()
