"""Items that were shown to the user without a click: the negatives in a log of impressions."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import torch
from pydantic import BaseModel, ConfigDict
from torch import Tensor

from dssm_core.errors import DataError
from dssm_core.features.events import Events
from dssm_core.features.interactions import Interactions
from dssm_core.features.time_keys import TimeKeys
from dssm_core.sampling.samplers.protocol import Bucket, FittedIds, Tables
from dssm_core.sampling.samplers.user_item_pairs import draw_from_lists, pair_keys, place_of


class Exposed(BaseModel):
    """Uniformly from the user's own rows of label 0 before the event's `as_of`; uniformly from all
    items if there are none.

    A row is left out if the user took its item at another time of the window.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    own: ClassVar[bool] = True
    even: ClassVar[bool] = False
    draws_positives: ClassVar[bool] = False
    from_batch: ClassVar[bool] = False
    fixed_shapes: ClassVar[bool] = True
    same_for_all: ClassVar[bool] = False
    ignores: ClassVar[tuple[str, ...]] = ()

    def files(self) -> dict[str, Path]:
        """None: only the log is read."""
        return {}

    def fit(self, log: Interactions, as_of: Tensor, ids: FittedIds) -> Tables:
        """Shown rows by user and time, to draw from; by pair and time, to count. DataError where
        there is none.
        """
        if not len(log.shown_item):
            raise DataError(
                "sampler 'exposed' draws what users were shown and did not take, but no train"
                " row of a known user and item has label 0: "
                "give a log with impressions (see data.positive), or take sampler 'uniform'"
            )
        codes = len(log.created)
        key = log.shown_user * codes + log.shown_item
        kept = ~place_of(pair_keys(log.user, log.item, codes), key)[1]
        pairs, pair = torch.unique(key[kept], return_inverse=True)
        by_user, order = TimeKeys.of(log.shown_user[kept], log.shown_time[kept])
        by_pair, _ = TimeKeys.of(pair, log.shown_time[kept])
        return {
            "by_user": by_user.keys,
            "items": log.shown_item[kept][order],
            "pairs": pairs,
            "by_pair": by_pair.keys,
            "times": by_user.times,
            "known": torch.tensor([codes - 1]),
        }

    def draw(
        self, tables: Tables, bucket: Bucket, count: int, events: Events, generator: torch.Generator
    ) -> Tensor:
        """[B, count] item codes."""
        begin, length = self._rows(tables, "by_user", events.user, events.as_of)
        return draw_from_lists(tables["items"], begin, length, tables["known"], count, generator)

    def log_q(self, tables: Tables, bucket: Bucket, items: Tensor, events: Events) -> Tensor:
        """items: [B, n] → [B, n]."""
        pair, shown = place_of(
            tables["pairs"], events.user[:, None] * (tables["known"] + 1) + items
        )
        times = self._rows(tables, "by_pair", pair, events.as_of[:, None].expand_as(pair))[1].where(
            shown, 0
        )
        length = self._rows(tables, "by_user", events.user, events.as_of)[1][:, None]
        return (
            torch.where(length > 0, times / length.clamp(min=1), 1 / tables["known"]).log().float()
        )

    def _rows(
        self, tables: Tables, name: str, code: Tensor, as_of: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Where each code's rows before as_of begin among sorted (code, time) keys, and how many
        they are.
        """
        keys = TimeKeys(tables["times"], tables[name])
        begin = keys.begin(code)
        return begin, keys.before(code, as_of) - begin
