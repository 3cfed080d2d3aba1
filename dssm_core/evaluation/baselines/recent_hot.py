"""The items with most clicks in the last hours; the number of hours is chosen on the last training
day.
"""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import BaseModel, ConfigDict, Field

from dssm_core.aliases import Ints
from dssm_core.evaluation.baselines.protocol import OneList
from dssm_core.features.popularity import (
    HOT_PLACES,
    HOT_WINDOWS_H,
    Clicks,
    hottest_recently,
    recent,
)


class RecentHot(BaseModel):
    """Most clicked in the last hours. Items without a click in these hours follow in order of all
    their clicks.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)
    needs_time: ClassVar[bool] = True
    ignores: ClassVar[tuple[str, ...]] = ()
    windows_h: Annotated[tuple[Annotated[int, Field(ge=1)], ...], Field(min_length=1)] = (
        HOT_WINDOWS_H
    )
    """Windows in hours to choose from, by recall a day earlier."""
    places: Annotated[int, Field(ge=1)] = HOT_PLACES
    """Number of first list positions that the choice looks at."""

    def variants(self, clicks: Clicks, as_of_ms: int) -> dict[str, Ints]:
        """The list of each candidate window, by `HOURSh`."""
        return {
            f"{hours}h": recent(clicks, as_of_ms, hours, clicks.n_items) for hours in self.windows_h
        }

    def fit(self, clicks: Clicks, as_of_ms: int, seed: int = 0) -> OneList:
        """The items with most clicks in the hours before `as_of_ms`.

        The window is chosen as if a day earlier: lists as of 24 hours before, judged on the clicks
        of those 24 hours. info: the window, and each candidate's recall on that day.
        """
        return OneList(*hottest_recently(clicks, as_of_ms, self.windows_h, self.places))
