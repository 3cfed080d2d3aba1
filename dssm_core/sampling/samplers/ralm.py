"""Log-uniform over the frequency rank, most clicked first (RALM, Liu et al. 2019; TensorFlow's
log-uniform candidates).
"""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import torch
from pydantic import BaseModel, ConfigDict
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


class Ralm(BaseModel):
    """log((rank + 2) / (rank + 1)) / log(items + 1) for the item of each rank 0, 1, …: Zipf's law,
    whatever the counts.

    No settings. `rank_suppressed` knows the other direction too.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    own: ClassVar[bool] = False
    even: ClassVar[bool] = False
    draws_positives: ClassVar[bool] = True
    from_batch: ClassVar[bool] = False
    fixed_shapes: ClassVar[bool] = True
    same_for_all: ClassVar[bool] = True
    ignores: ClassVar[tuple[str, ...]] = ()

    def files(self) -> dict[str, Path]:
        """None: only the log is read."""
        return {}

    def fit(self, log: Interactions, as_of: Tensor, ids: FittedIds) -> Tables:
        """One distribution over all items."""
        return categorical_of_all(log_uniform(by_frequency(log)[0]))

    def draw(
        self, tables: Tables, bucket: Bucket, count: int, events: Events, generator: torch.Generator
    ) -> Tensor:
        """[count] item codes, whatever the bucket."""
        return draw_categorical(tables, 0, count, generator)

    def log_q(self, tables: Tables, bucket: Bucket, items: Tensor, events: Events) -> Tensor:
        """items: any shape → the same."""
        return share_of(tables, 0, items).log().float()


def log_uniform(order: Tensor) -> Tensor:
    """Probability of each row, given the rows [N] from rank 0 on. → [N] float64."""
    rank = torch.arange(len(order), dtype=torch.double)
    share = torch.log1p(1 / (rank + 1)) / torch.tensor(len(order) + 1.0, dtype=torch.double).log()
    return torch.empty_like(share).index_copy_(0, order, share)
