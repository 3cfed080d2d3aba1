"""Most clicked in the last hours; how many hours is chosen on the last train day."""

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
    """`windows_h`: the candidate windows; the choice is by recall in the first `places`.

    Items without a click in the window follow in order of all their clicks.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    needs_time: ClassVar[bool] = True
    ignores: ClassVar[tuple[str, ...]] = ()
    windows_h: Annotated[tuple[Annotated[int, Field(ge=1)], ...], Field(min_length=1)] = (
        HOT_WINDOWS_H
    )
    places: Annotated[int, Field(ge=1)] = HOT_PLACES

    def variants(self, clicks: Clicks, as_of_ms: int) -> dict[str, Ints]:
        """The list of each window, by `HOURSh`."""
        return {
            f"{hours}h": recent(clicks, as_of_ms, hours, clicks.n_items) for hours in self.windows_h
        }

    def fit(self, clicks: Clicks, as_of_ms: int) -> OneList:
        """Most clicked in the hours before `as_of_ms`; info: the window, and each candidate's
        recall on the last day.

        The choice is made as if a day earlier: lists as of 24 hours before, judged on those 24
        hours' clicks.
        """
        return OneList(*hottest_recently(clicks, as_of_ms, self.windows_h, self.places))
