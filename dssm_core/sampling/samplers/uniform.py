"""All items with the same probability."""

from __future__ import annotations

import math
from pathlib import Path
from typing import ClassVar

import torch
from pydantic import BaseModel, ConfigDict
from torch import Tensor

from dssm_core.features.events import Events
from dssm_core.features.interactions import Interactions
from dssm_core.sampling.samplers.protocol import Bucket, FittedIds, Tables


class Uniform(BaseModel):
    """Each item of the training window with the same probability."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    own: ClassVar[bool] = False
    even: ClassVar[bool] = True
    draws_positives: ClassVar[bool] = True
    from_batch: ClassVar[bool] = False
    fixed_shapes: ClassVar[bool] = True
    same_for_all: ClassVar[bool] = True
    ignores: ClassVar[tuple[str, ...]] = ()

    def files(self) -> dict[str, Path]:
        """None: only the log is read."""
        return {}

    def fit(self, log: Interactions, as_of: Tensor, ids: FittedIds) -> Tables:
        """All items."""
        return {"items": torch.arange(1, len(log.created))}

    def draw(
        self, tables: Tables, bucket: Bucket, count: int, events: Events, generator: torch.Generator
    ) -> Tensor:
        """[count] item codes, whatever the bucket."""
        known = len(tables["items"])
        return torch.randint(1, known + 1, (count,), generator=generator, device=generator.device)

    def log_q(self, tables: Tables, bucket: Bucket, items: Tensor, events: Events) -> Tensor:
        """-log of the number of items. items: any shape → the same."""
        return torch.full(items.shape, -math.log(len(tables["items"])), device=items.device)
