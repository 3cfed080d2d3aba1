"""By frequency rank instead of frequency, so that the very popular do not crowd out the rest (as in
fun-rec's sampling).
"""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, Literal

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
from dssm_core.sampling.samplers.ralm import log_uniform


class RankSuppressed(BaseModel):
    """In proportion to log((rank + 2) / (rank + 1)). With `popular` this is the same distribution
    as `ralm`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)
    own: ClassVar[bool] = False
    even: ClassVar[bool] = False
    draws_positives: ClassVar[bool] = True
    from_batch: ClassVar[bool] = False
    fixed_shapes: ClassVar[bool] = True
    same_for_all: ClassVar[bool] = True
    ignores: ClassVar[tuple[str, ...]] = ()
    favour: Literal["popular", "rare"] = "popular"
    """Whether rank 0 is the item with the most clicks (`popular`) or with the fewest (`rare`)."""

    def files(self) -> dict[str, Path]:
        """None: only the log is read."""
        return {}

    def fit(self, log: Interactions, as_of: Tensor, ids: FittedIds) -> Tables:
        """One distribution over all items."""
        order, _ = by_frequency(log)
        return categorical_of_all(log_uniform(order if self.favour == "popular" else order.flip(0)))

    def draw(
        self, tables: Tables, bucket: Bucket, count: int, events: Events, generator: torch.Generator
    ) -> Tensor:
        """[count] item codes, whatever the bucket."""
        return draw_categorical(tables, 0, count, generator)

    def log_q(self, tables: Tables, bucket: Bucket, items: Tensor, events: Events) -> Tensor:
        """items: any shape → the same."""
        return share_of(tables, 0, items).log().float()
