"""Items with recent clicks at the time of the event, for catalogues that change fast, as news."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated, ClassVar

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from dssm_core.columns import HOUR_MS
from dssm_core.config import Config
from dssm_core.features.events import Events
from dssm_core.features.interactions import Interactions
from dssm_core.sampling.samplers.protocol import (
    Bucket,
    FittedIds,
    Tables,
    categorical,
    draw_categorical,
    share_of,
    tally,
)

ROWS_AT_ONCE = 4_000_000


class Active(BaseModel):
    """Items that were being clicked before the refresh, and with probability `uniform_share` any
    item that exists by then, so that quiet items are negatives too.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)
    own: ClassVar[bool] = False
    even: ClassVar[bool] = False
    draws_positives: ClassVar[bool] = True
    from_batch: ClassVar[bool] = False
    fixed_shapes: ClassVar[bool] = True
    same_for_all: ClassVar[bool] = False
    ignores: ClassVar[tuple[str, ...]] = ()
    window_h: Annotated[int, Field(ge=1)] = 24
    """Hours before the refresh whose clicks count."""
    alpha: Annotated[float, Field(ge=0)] = 0.75
    """Items are drawn in proportion to clicks ** alpha."""
    uniform_share: Annotated[float, Field(gt=0, le=1)] = 0.3
    """Share of draws that are uniform over all items that exist."""

    def problems(self, config: Config) -> Iterator[str]:
        """A config without item activity."""
        if not config.features.activity.enabled:
            yield (
                "sampler 'active' draws by activity: set features.activity.enabled to true"
                " or take another sampler"
            )

    def files(self) -> dict[str, Path]:
        """None: only the log is read."""
        return {}

    def fit(self, log: Interactions, as_of: Tensor, ids: FittedIds) -> Tables:
        """Per bucket a distribution over active items; all items by the time they are first known.

        Memory follows the (bucket, item) pairs with a click, not buckets times items.
        """
        bucket, item, clicks = _recent_clicks(log, as_of, self.window_h)
        order = log.created[1:].argsort(stable=True)
        return {
            **categorical(bucket, item, clicks**self.alpha, buckets=len(as_of)),
            "by_age": order + 1,
            "known": torch.searchsorted(log.created[1:][order], as_of),
            "created": log.created,
            "as_of": as_of,
        }

    def draw(
        self, tables: Tables, bucket: Bucket, count: int, events: Events, generator: torch.Generator
    ) -> Tensor:
        """[count] item codes known and mostly active as of the bucket's refresh; the order says
        nothing.
        """
        chance, place = torch.rand(
            2, count, generator=generator, device=generator.device, dtype=torch.double
        )
        known = tables["by_age"][(place * tables["known"][bucket]).long()]
        if not len(tables["items"]):
            return known
        active = draw_categorical(tables, bucket, count, generator)
        return torch.where(chance < self._share(tables, bucket), known, active)

    def log_q(self, tables: Tables, bucket: Bucket, items: Tensor, events: Events) -> Tensor:
        """items: any shape → the same."""
        share = self._share(tables, bucket)
        known = tables["created"][items] < tables["as_of"][bucket]
        uniform = torch.where(known & (items > 0), share / tables["known"][bucket].double(), 0.0)
        return (uniform + (1 - share) * share_of(tables, bucket, items)).log().float()

    def _share(self, tables: Tables, bucket: Bucket) -> Tensor:
        """Share of uniform draws: all, if no item is active because the window has no click."""
        quiet = tables["ptr"][bucket + 1] == tables["ptr"][bucket]
        return self.uniform_share + (1 - self.uniform_share) * quiet.double()


def _recent_clicks(
    log: Interactions, as_of: Tensor, window_h: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Clicks in the window_h hours before each refresh, by bucket and item: what `tally` gives."""
    hour, item, clicks = _hourly_clicks(log)
    last = (as_of - log.start) // HOUR_MS
    begin = torch.searchsorted(hour, last - window_h).tolist()
    end = torch.searchsorted(hour, last).tolist()
    windows = [slice(*edges) for edges in zip(begin, end, strict=True)]
    return _joined(
        tally(torch.full_like(item[rows], bucket), item[rows], clicks[rows])
        for bucket, rows in enumerate(windows)
    )


def _hourly_clicks(log: Interactions) -> tuple[Tensor, Tensor, Tensor]:
    """Clicks by hour since the log's start and item, counted in parts: what `tally` gives."""
    hours = (time - log.start for time in log.time.split(ROWS_AT_ONCE))
    parts = zip(hours, log.item.split(ROWS_AT_ONCE), strict=True)
    return tally(*_joined(tally(ms // HOUR_MS, item, torch.ones(len(item))) for ms, item in parts))


def _joined(parts: Iterable[tuple[Tensor, Tensor, Tensor]]) -> tuple[Tensor, Tensor, Tensor]:
    bucket, item, sums = (torch.cat(columns) for columns in zip(*parts, strict=True))
    return bucket, item, sums
