"""Most clicked in the whole training window."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict

from dssm_core.baselines.protocol import Clicks, OneList, top
from dssm_core.schema import DAY_MS


class Hot(BaseModel):
    """No settings. Equal counts are ordered by the last day's clicks."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    def fit(self, clicks: Clicks, as_of_ms: int) -> OneList:
        """Every item clicked before `as_of_ms`, most clicked first."""
        known = clicks.between(0, as_of_ms)
        return OneList(top(clicks.n_items, known.counts(), known.between(as_of_ms - DAY_MS, as_of_ms).counts()))
