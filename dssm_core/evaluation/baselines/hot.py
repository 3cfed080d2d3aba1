"""The items with most clicks in the training set."""

from __future__ import annotations

from typing import ClassVar

from pydantic import BaseModel, ConfigDict

from dssm_core.aliases import Ints
from dssm_core.evaluation.baselines.protocol import OneList
from dssm_core.features.popularity import Clicks, hottest_overall


class Hot(BaseModel):
    """The most clicked items of the training set. No settings. Equal counts are ordered by the
    clicks of the last day.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    needs_time: ClassVar[bool] = False
    ignores: ClassVar[tuple[str, ...]] = ()

    def variants(self, clicks: Clicks, as_of_ms: int) -> dict[str, Ints]:
        """None."""
        return {}

    def fit(self, clicks: Clicks, as_of_ms: int, seed: int = 0) -> OneList:
        """Every item clicked before `as_of_ms`, most clicked first."""
        return OneList(hottest_overall(clicks, as_of_ms))
