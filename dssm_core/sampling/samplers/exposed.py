"""Items that were shown to the user without a click: the negatives in a log of impressions."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar, Self

import torch
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor
from torch.nn.functional import pad

from dssm_core.errors import DataError
from dssm_core.features.events import Events
from dssm_core.features.interactions import Interactions
from dssm_core.features.time_keys import TimeKeys
from dssm_core.sampling.samplers.protocol import Bucket, FittedIds, Tables
from dssm_core.sampling.samplers.user_item_pairs import pair_keys, place_of


class Shares(BaseModel):
    """Share of the draws from each source; they add up to 1. A source that has no item for an event
    passes its share on to the next one.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)
    impression: Annotated[float, Field(ge=0, le=1)] = 0.0
    """The other items of the event's impression (`impression_id`) that were not taken."""
    earlier: Annotated[float, Field(ge=0, le=1)] = 0.0
    """The user's rows of label 0 before the event's `as_of`, of any impression."""
    uniform: Annotated[float, Field(ge=0, le=1)] = 0.0
    """All items."""

    @model_validator(mode="after")
    def _whole(self) -> Self:
        total = self.impression + self.earlier + self.uniform
        if abs(total - 1) > 1e-6:
            raise ValueError(
                f"sampler.shares add up to {total:g}: let them add up to 1, such as"
                " {impression: 0.5, earlier: 0.25, uniform: 0.25}; one that is left out is 0"
            )
        return self


class Exposed(BaseModel):
    """What the user was shown and did not take: in the impression of the event, or earlier; and all
    items. Each source draws its rows alike.

    A row is left out if the user took its item at another time of the window.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)
    own: ClassVar[bool] = True
    even: ClassVar[bool] = False
    from_batch: ClassVar[bool] = False
    fixed_shapes: ClassVar[bool] = True
    same_for_all: ClassVar[bool] = False
    ignores: ClassVar[tuple[str, ...]] = ()
    shares: Shares = Shares(impression=0.5, earlier=0.25, uniform=0.25)
    """Where draws come from. A source without an item for an event passes its share on to the next
    one."""

    @property
    def draws_positives(self) -> bool:
        """Whether all items can be drawn for every event."""
        return self.shares.uniform > 0

    def files(self) -> dict[str, Path]:
        """None: only the log is read."""
        return {}

    def fit(self, log: Interactions, as_of: Tensor, ids: FittedIds) -> Tables:
        """The rows of all sources as one list, `items`: those of each user by time, those of each
        impression, all items. And how often each user had an item by when, and each impression.

        DataError if nothing was shown and not taken.
        """
        if not len(log.shown_item):
            raise DataError(
                "sampler 'exposed' draws what users were shown and did not take, but no train"
                " row of a known user and item has label 0: "
                "give a log with impressions (see data.positive), or take sampler 'uniform'"
            )
        codes = len(log.created)
        taken = pair_keys(log.user, log.item, codes)
        kept = ~place_of(taken, log.shown_user * codes + log.shown_item)[1]
        user, item, time = (part[kept] for part in (log.shown_user, log.shown_item, log.shown_time))
        pairs, pair = torch.unique(user * codes + item, return_inverse=True)
        by_user, order = TimeKeys.of(user, time)
        by_pair, _ = TimeKeys.of(pair, time)
        impressions = _impressions(log, kept, codes)
        return {
            "items": torch.cat([item[order], impressions.pop("items"), torch.arange(1, codes)]),
            "times": by_user.times,
            "by_user": by_user.keys,
            "pairs": pairs,
            "by_pair": by_pair.keys,
            "first": by_pair.begin(torch.arange(len(pairs) + 1)),
            "known": torch.tensor([codes - 1]),
            **impressions,
        }

    def draw(
        self, tables: Tables, bucket: Bucket, count: int, events: Events, generator: torch.Generator
    ) -> Tensor:
        """[B, count] item codes."""
        impression, earlier, uniform = self._sources(tables, events)
        chance = torch.rand(
            len(events.user),
            count,
            generator=generator,
            device=generator.device,
            dtype=torch.double,
        )
        first = impression.share
        second = first + earlier.share
        place = uniform.place(chance - second)
        place = torch.where(chance < second, earlier.place(chance - first), place)
        place = torch.where(chance < first, impression.place(chance), place)
        return tables["items"][place]

    def log_q(self, tables: Tables, bucket: Bucket, items: Tensor, events: Events) -> Tensor:
        """items: [B, n] → [B, n]."""
        impression, earlier, uniform = self._sources(tables, events)
        q = impression.chance * _times_in_impression(tables, items, events)
        q += earlier.chance * _times_earlier(tables, items, events)
        return (q + uniform.chance).log().float()

    def drawn_from(self, tables: Tables, events: Events) -> dict[str, int]:
        """Number of events by the first source with a share and an item for them."""
        rest = torch.ones_like(events.user, dtype=torch.bool)
        numbers = {}
        for name, source in zip(Shares.model_fields, self._sources(tables, events), strict=True):
            if getattr(self.shares, name) or name == "uniform":
                numbers[name] = int((rest & (source.length[:, 0] > 0)).sum())
                rest &= source.length[:, 0] == 0
        return numbers

    def _sources(self, tables: Tables, events: Events) -> Iterator[Source]:
        """The sources in order, each with the share that it has for each event."""
        total = self.shares.impression + self.shares.earlier + self.shares.uniform
        passed = torch.zeros_like(events.user, dtype=torch.double)
        for name, (begin, length) in _lists(tables, events).items():
            passed = passed + getattr(self.shares, name) / total
            share = passed.where(length > 0, 0)
            passed = passed - share
            yield Source(begin[:, None], length[:, None], share[:, None])


@dataclass(frozen=True)
class Source:
    """The rows of `items` that a source draws for each event, and its share of the draws, which is
    0 if it has none. All [B, 1].
    """

    begin: Tensor
    length: Tensor
    share: Tensor

    @property
    def chance(self) -> Tensor:
        """Probability that a draw is one row of the source. → [B, 1]"""
        return self.share / self.length.clamp(min=1)

    def place(self, chance: Tensor) -> Tensor:
        """The row that a number between 0 and the share chooses. [B, n] → [B, n]; any row for other
        numbers.
        """
        rows = torch.where(self.share > 0, self.length / self.share, 0)
        last = (self.length - 1).clamp(min=0)
        return self.begin + (chance * rows).long().clamp(min=0).minimum(last)


def _lists(tables: Tables, events: Events) -> dict[str, tuple[Tensor, Tensor]]:
    """Where the rows of each source begin in `items`, and how many they are. All [B]."""
    keys = TimeKeys(tables["times"], tables["by_user"])
    begin = keys.begin(events.user)
    impression = _impression(events)
    first = tables["ptr"][impression]
    everything = tables["ptr"][-1:].expand_as(begin)
    return {
        "impression": (first, tables["ptr"][impression + 1] - first),
        "earlier": (begin, keys.before(events.user, events.as_of) - begin),
        "uniform": (everything, tables["known"].expand_as(begin)),
    }


def _impressions(log: Interactions, kept: Tensor, codes: int) -> Tables:
    """The rows of each impression: their `items`, where those of an impression begin in the list of
    all sources (ptr), and the distinct pairs of impression and item with how often they occur.
    """
    earlier = int(kept.sum())
    if not log.has_impressions:
        none = torch.zeros(0, dtype=torch.int64)
        ends = torch.full((2,), earlier)
        return {"items": none, "ptr": ends, "shown": none, "times_shown": pad(none, (0, 1))}
    code = log.shown_impression[kept]
    key, _ = (code * codes + log.shown_item[kept])[code > 0].sort()
    last = int(torch.cat([log.impression, log.shown_impression]).max())
    shown, times = torch.unique(key, return_counts=True)
    ptr = torch.searchsorted(key, torch.arange(last + 2) * codes)
    return {
        "items": key % codes,
        "ptr": earlier + ptr,
        "shown": shown,
        "times_shown": pad(times, (0, 1)),
    }


def _times_in_impression(tables: Tables, items: Tensor, events: Events) -> Tensor:
    """How often each item was shown in the impression of the event. items: [B, n] → [B, n]."""
    key = _impression(events)[:, None] * (tables["known"] + 1) + items
    place, shown = place_of(tables["shown"], key)
    return tables["times_shown"][place].where(shown, 0)


def _times_earlier(tables: Tables, items: Tensor, events: Events) -> Tensor:
    """How often each item was shown to the user before the event. items: [B, n] → [B, n]."""
    key = events.user[:, None] * (tables["known"] + 1) + items
    pair, shown = place_of(tables["pairs"], key)
    keys = TimeKeys(tables["times"], tables["by_pair"])
    before = keys.before(pair, events.as_of[:, None])
    return (before - tables["first"][pair]).where(shown, 0)


def _impression(events: Events) -> Tensor:
    """The impression of each event, 0 for none. → [B]."""
    return torch.zeros_like(events.user) if events.impression is None else events.impression
