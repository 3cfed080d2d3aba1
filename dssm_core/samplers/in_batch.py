"""The other events' items: no drawing at all, popular items drawn the most."""

from __future__ import annotations

import torch
from pydantic import BaseModel, ConfigDict
from torch import Tensor

from dssm_core.features import Log
from dssm_core.samplers.protocol import Tables, categorical, share_of


class InBatch(BaseModel):
    """The batch's own positives, each with its share of the bucket's events as probability (Yi et al. 2019, exact)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    def fit(self, log: Log, as_of: Tensor) -> Tables:
        """Each bucket's events by item."""
        bucket = torch.searchsorted(as_of, log.time, right=True) - 1
        kept = bucket >= 0  # before the first refresh nothing is known: no training event lies there
        at = torch.stack([bucket[kept], log.item[kept]])
        return categorical(
            torch.sparse_coo_tensor(at, torch.ones(at.shape[1], dtype=torch.double), (len(as_of), len(log.created)))
        )

    def draw(self, tables: Tables, bucket: int, count: int, positives: Tensor, generator: torch.Generator) -> Tensor:
        """The batch's positives, as many as there are. → [B]."""
        return positives

    def log_q(self, tables: Tables, bucket: int, items: Tensor) -> Tensor:
        """items: [n] → [n]."""
        return share_of(tables, bucket, items).log().float()
