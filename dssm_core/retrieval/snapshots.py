"""A trained bundle over a log that has gone on since: the same towers and features, as of any later
moment.

What is known then is what `export_embeddings` would know had the train window ended there, equally
long: as of the bundle's own cutoff the vectors are the exported ones. Users and items that came
since have codes behind the bundle's own, in the order in which they came, so that what is known
earlier is a first part of what is known later. Their features count, their ids are the unknown one.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from dssm_core.aliases import Floats
from dssm_core.columns import CREATED, ITEM, TIME, USER
from dssm_core.config import Config
from dssm_core.data.splits.days import Days
from dssm_core.data.splits.protocol import Window
from dssm_core.errors import ConfigError
from dssm_core.features.dataset import NO_CREATION_TIME, Prepared, creation_times, first_known_times
from dssm_core.features.ids import Ids
from dssm_core.features.inputs import ColumnTable, user_inputs
from dssm_core.features.interactions import Interactions
from dssm_core.features.tables import encode_context, extend_table
from dssm_core.retrieval.embeddings import embed_items, hottest, learned
from dssm_core.retrieval.encoder import Encoder, users_at_once
from dssm_core.retrieval.new_users import HotList

NEVER = torch.iinfo(torch.int64).max


@dataclass(frozen=True)
class LatestTables:
    """Positives in time order (user_id, item_id, timestamp, context columns), and the users and
    items tables where there are such.
    """

    clicks: pd.DataFrame
    users: pd.DataFrame | None = None
    items: pd.DataFrame | None = None


@dataclass(frozen=True)
class Timeline:
    """A bundle's towers, and every click of a longer log in the bundle's codes and new ones behind
    them.

    user, item: [n] codes; time: [n] ms, ascending; context: [n, columns] codes; user_since,
    item_since: [codes] ms, ascending, when each is first known (the bundle's own always were);
    told: [item codes] ms, when created, NO_CREATION_TIME where nobody says.
    """

    encoder: Encoder
    window: Window
    users: Ids
    items: Ids
    user: Tensor
    item: Tensor
    time: Tensor
    context: Tensor
    user_since: Tensor
    item_since: Tensor
    told: Tensor
    user_table: ColumnTable
    item_table: ColumnTable

    @classmethod
    def of(cls, folder: Path, latest: LatestTables) -> Timeline:
        """The bundle in `folder`, as it was registered, over the latest clicks. ConfigError where
        its split has no days.
        """
        encoder = Encoder(folder)
        columns, tables, own_users, own_items = (
            encoder.config.features.columns,
            encoder.prepared,
            encoder.user_ids,
            encoder.item_ids,
        )
        listed = latest.items if encoder.config.features.catalogue == "table" else None
        clicks = (
            latest.clicks
            if listed is None
            else _on_items(latest.clicks, own_items.followed_by(listed[ITEM]))
        )
        users, items = (
            own_users.followed_by(clicks[USER]),
            own_items.followed_by(clicks[ITEM] if listed is None else _by_age(listed)),
        )
        user, item = (
            torch.from_numpy(ids.encode(clicks[key])) for ids, key in ((users, USER), (items, ITEM))
        )
        time, told = (
            torch.from_numpy(clicks[TIME].to_numpy(np.int64, copy=True)),
            creation_times(latest.items, items),
        )
        return cls(
            encoder=encoder,
            window=trained_window(encoder.config),
            users=users,
            items=items,
            user=user,
            item=item,
            time=time,
            context=encode_context(columns, clicks, folder),
            user_since=_since(_first_click(user, time, len(users)), len(own_users)),
            item_since=_since(
                _first_click(item, time, len(items)) if listed is None else told, len(own_items)
            ),
            told=told,
            user_table=extend_table(
                tables.users, columns, "user", latest.users, users.after(len(own_users)), folder
            ),
            item_table=extend_table(
                tables.items, columns, "item", latest.items, items.after(len(own_items)), folder
            ),
        )

    def as_of(self, as_of_ms: int) -> Snapshot:
        """What is known at a moment: no click at or after it counts."""
        start = as_of_ms - (self.window.cutoff_ms - self.window.start_ms)
        rows = slice(*torch.searchsorted(self.time, torch.tensor([start, as_of_ms])).tolist())
        n_users, n_items = (
            int(torch.searchsorted(since, as_of_ms)) for since in (self.user_since, self.item_since)
        )
        created = first_known_times(
            torch.full((n_items,), as_of_ms), self.item[rows], self.time[rows], self.told[:n_items]
        )
        if (
            self.encoder.config.features.catalogue == "positives"
        ):  # who has no click in the window had one before it
            created = torch.where(created == as_of_ms, start, created)
        window = torch.tensor([start, as_of_ms])
        return Snapshot(
            self,
            Interactions(
                self.user[rows],
                self.item[rows],
                self.time[rows],
                self.context[rows],
                created,
                window,
            ),
            n_users,
        )

    def clicks_before(self, as_of_ms: int) -> int:
        """How many of the clicks there are before a moment."""
        return int(torch.searchsorted(self.time, as_of_ms))


@dataclass(frozen=True)
class Snapshot:
    """What is known at the end of `log`'s window; n_users: how many user codes there are, the
    unknown one included.
    """

    of: Timeline
    log: Interactions
    n_users: int

    @property
    def n_items(self) -> int:
        """How many item codes there are, the unknown one included."""
        return len(self.log.created)

    @property
    def user_ids(self) -> Ids:
        """The ids of the users who are known."""
        return self.of.users.first(self.n_users)

    @property
    def item_ids(self) -> Ids:
        """The ids of the items that are known."""
        return self.of.items.first(self.n_items)

    @cached_property
    def acted(self) -> Tensor:
        """Codes of the users who have acted since the bundle was made, ascending. → [B]."""
        acted: Tensor = self.log.user[self.log.time >= self.of.window.cutoff_ms].unique()
        return acted

    @cached_property
    def _learned_items(self) -> Interactions:
        """The clicks on items that the towers know: a history shows no others."""
        return self.log.without(self.log.item >= self.of.encoder.prepared.schema.items)

    def items(self, exported: Floats) -> Floats:
        """Every known item's vector. exported: the bundle's own [N, D] → [N or more, D], row = code
        - 1.

        Item activity moves with the clock, so with it every item is embedded anew; without it those
        that came since.
        """
        encoder, prepared = self.of.encoder, self.of.encoder.prepared
        state = Prepared(
            self.log, prepared.users, self.of.item_table, prepared.scale, prepared.schema
        )
        if encoder.config.features.activity.enabled:
            return embed_items(encoder.model, state, encoder.config)
        new = len(exported) + 1
        return (
            np.concatenate([exported, embed_items(encoder.model, state, encoder.config, new)])
            if self.n_items > new
            else exported
        )

    @torch.no_grad()
    def users(self, codes: Tensor) -> Floats:
        """Vectors of users by what they have done by now; the context is that of their newest click
        on any item. codes: [B] → [B, D].
        """
        encoder, length = self.of.encoder, self.of.encoder.config.features.history.length

        def embed(part: Tensor) -> Tensor:
            now = torch.full_like(part, self.log.end)
            history, context = (
                self._learned_items.history(part, now, length)[0],
                self.log.history(part, now, 1)[1],
            )
            inputs = user_inputs(self.of.user_table, part, history, context, now)
            return encoder.model.users(
                inputs._replace(user=learned(part, encoder.prepared.schema.users))
            )

        return torch.cat(
            [embed(part) for part in codes.split(users_at_once(encoder.config.features))]
        ).numpy()

    def hot(self, exported: HotList | None) -> HotList | None:
        """What newcomers get by now, where the bundle has a list for them."""
        return hottest(self.log, self.of.encoder.config) if exported else None

    def all_users(self, exported: Floats) -> Floats:
        """Every known user's vector, the unknown one first: anew for those who have acted.
        exported: [U + 1, D] → [n_users, D].
        """
        vectors = np.concatenate(
            [exported, np.zeros((self.n_users - len(exported), exported.shape[1]), np.float32)]
        )
        if len(self.acted):
            vectors[self.acted.numpy()] = self.users(self.acted)
        return vectors


def trained_window(config: Config) -> Window:
    """When a bundle's train window began and ended. ConfigError where its split has no days."""
    if not isinstance(config.split, Days):
        raise ConfigError(
            f"split {config.split.kind!r} has no moment that everything is known up to: refreshing needs split.kind days"
        )
    window: Window = config.split.window(config.data.zone)
    return window


def _on_items(clicks: pd.DataFrame, items: Ids) -> pd.DataFrame:
    return clicks[items.encode(clicks[ITEM]) > 0].reset_index(drop=True)


def _by_age(items: pd.DataFrame) -> pd.Series[Any]:
    """The table's ids, oldest first, those of unknown age before them."""
    return (
        items.sort_values(CREATED, kind="stable", na_position="first")[ITEM]
        if CREATED in items
        else items[ITEM]
    )


def _first_click(code: Tensor, time: Tensor, codes: int) -> Tensor:
    """Time of each code's first click, ms; NEVER where there is none. code, time: [n] → [codes]."""
    return torch.full((codes,), NEVER).scatter_reduce(0, code, time, "amin")


def _since(known: Tensor, own: int) -> Tensor:
    """When each code is first known; the first `own` always were. [codes] → [codes]."""
    return known.index_fill(0, torch.arange(own), NO_CREATION_TIME)
