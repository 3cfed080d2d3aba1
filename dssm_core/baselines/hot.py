"""Most clicked in the whole training window."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict

from dssm_core.baselines.protocol import Clicks, Ranking, top
from dssm_core.schema import DAY_MS


class Hot(BaseModel):
    """No settings. Equal counts are ordered by the last day's clicks."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    def rank(self, clicks: Clicks, as_of_ms: int, k: int) -> Ranking:
        """The k most clicked before `as_of_ms`."""
        known = clicks.between(0, as_of_ms)
        return Ranking(top(k, known.counts(), known.between(as_of_ms - DAY_MS, as_of_ms).counts()))
