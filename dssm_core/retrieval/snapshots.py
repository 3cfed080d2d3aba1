"""A trained bundle over a log that continues after its training: its vectors as of a later time.

The towers and the fitted features stay those of the bundle. A snapshot as of a time t holds what
`export_embeddings` would know if a train window of the same length ended at t; as of the bundle's
own cutoff, its vectors are the exported ones. Users and items that first appear after the training
get codes behind the bundle's own codes, in order of first appearance, so that the codes of an
earlier snapshot are the first codes of a later one. The towers use the features of these new users
and items, and embed their ids as the unknown id.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from dssm_core.aliases import Floats, Texts
from dssm_core.columns import ITEM, TIME, USER
from dssm_core.config import Config
from dssm_core.data.splits.days import Days
from dssm_core.data.splits.protocol import Window
from dssm_core.errors import ConfigError
from dssm_core.features.dataset import NO_CREATION_TIME, Prepared, creation_times, first_known_times
from dssm_core.features.ids import Ids
from dssm_core.features.inputs import ColumnTable, user_inputs
from dssm_core.features.interactions import Interactions
from dssm_core.features.prior import PriorItems
from dssm_core.features.tables import encode_context, extend_table
from dssm_core.retrieval.catalogue import Catalogue, make_catalogue
from dssm_core.retrieval.embeddings import embed_items, most_clicked
from dssm_core.retrieval.encoder import Encoder, users_per_batch
from dssm_core.retrieval.latest_tables import (
    LatestTables,
    by_age,
    on_items,
    prior_items,
    prior_rows,
)
from dssm_core.retrieval.new_users import HotList
from dssm_core.retrieval.seen_items import SeenItems

NEVER = torch.iinfo(torch.int64).max


@dataclass(frozen=True)
class Timeline:
    """A bundle's towers, and all clicks of a longer log in the bundle's codes.

    user, item: [n] codes. time: [n] ms, ascending. context: [n, columns] codes.
    user_since, item_since: [codes] ms, ascending, the time from which on each code is known; codes
    of the bundle are known at any time.
    prior: what users had taken before the log.
    creation_time: [item codes] ms, from the items table, NO_CREATION_TIME where it has none.
    """

    encoder: Encoder
    window: Window
    users: Ids
    items: Ids
    user: Tensor
    item: Tensor
    time: Tensor
    context: Tensor
    prior: PriorItems
    user_since: Tensor
    item_since: Tensor
    creation_time: Tensor
    user_table: ColumnTable
    item_table: ColumnTable
    catalogue: Catalogue

    @classmethod
    def of(cls, folder: Path, latest: LatestTables) -> Timeline:
        """Open the registered bundle in `folder` over the latest tables.

        Raises ConfigError if the bundle's split is not by days.
        """
        encoder = Encoder(folder)
        columns = encoder.config.features.columns
        listed = latest.items if encoder.config.features.catalogue == "table" else None
        clicks = latest.clicks
        if listed is not None:
            clicks = on_items(clicks, encoder.item_ids.followed_by(listed[ITEM]))
        items = encoder.item_ids.followed_by(clicks[ITEM] if listed is None else by_age(listed))
        prior = prior_rows(latest.histories, items)
        shown = prior["code"] < encoder.prepared.schema.items  # what a history can show
        rows = pd.concat([clicks[[USER, TIME]], prior.loc[shown, [USER, TIME]]])
        rows = rows.sort_values(TIME, kind="stable")
        users = encoder.user_ids.followed_by(rows[USER])
        user = torch.from_numpy(users.encode(clicks[USER]))
        item = torch.from_numpy(items.encode(clicks[ITEM]))
        time = torch.from_numpy(clicks[TIME].to_numpy(np.int64, copy=True))
        creation_time = creation_times(latest.items, items)
        first_seen = _first_click(item, time, len(items)) if listed is None else creation_time
        new_users = users.after(len(encoder.user_ids))
        new_items = items.after(len(encoder.item_ids))
        tables = encoder.prepared
        return cls(
            encoder=encoder,
            window=trained_window(encoder.config),
            users=users,
            items=items,
            user=user,
            item=item,
            time=time,
            context=encode_context(columns, clicks, folder),
            prior=prior_items(prior, users),
            user_since=_known_since(_first_of_users(rows, users), len(encoder.user_ids)),
            item_since=_known_since(first_seen, len(encoder.item_ids)),
            creation_time=creation_time,
            user_table=extend_table(tables.users, columns, "user", latest.users, new_users, folder),
            item_table=extend_table(tables.items, columns, "item", latest.items, new_items, folder),
            catalogue=make_catalogue(latest.items, items, encoder.config),
        )

    def as_of(self, as_of_ms: int) -> Snapshot:
        """What is known at a time: only clicks before it count."""
        start = as_of_ms - (self.window.cutoff_ms - self.window.start_ms)
        window = torch.tensor([start, as_of_ms])
        rows = slice(*torch.searchsorted(self.time, window).tolist())
        n_users = int(torch.searchsorted(self.user_since, as_of_ms))
        n_items = int(torch.searchsorted(self.item_since, as_of_ms))
        otherwise = torch.full((n_items,), as_of_ms)
        created = first_known_times(
            otherwise, self.item[rows], self.time[rows], self.creation_time[:n_items]
        )
        if self.encoder.config.features.catalogue == "positives":
            # An item without a click in the window was clicked before the window.
            created = torch.where(created == as_of_ms, start, created)
        log = Interactions(
            self.user[rows],
            self.item[rows],
            self.time[rows],
            self.context[rows],
            created,
            window,
            prior=self.prior.of_items(n_items),
        )
        return Snapshot(self, log, n_users)

    def seen_before(self, as_of_ms: int) -> SeenItems:
        """What each user has clicked before a time, and had taken before the log."""
        before = self.clicks_before(as_of_ms)
        user = torch.cat([self.user[:before], self.prior.user]).numpy()
        item = torch.cat([self.item[:before], self.prior.item]).numpy() - 1
        return SeenItems.of(user, item, len(self.users), len(self.items) - 1)

    def first_context(self, users: Texts) -> Tensor:
        """The context of the first click of each user, external ids [B]. → [B, columns]."""
        row = torch.arange(len(self.user))
        first = row.new_full((len(self.users),), len(row)).scatter_reduce(0, self.user, row, "amin")
        return self.context[first[torch.from_numpy(self.users.encode(pd.Index(users)))]]

    def clicks_before(self, as_of_ms: int) -> int:
        """The number of clicks before a time."""
        return int(torch.searchsorted(self.time, as_of_ms))


@dataclass(frozen=True)
class Snapshot:
    """What is known at the end of the window of `log`.

    n_users: the number of user codes, including the unknown user.
    """

    timeline: Timeline
    log: Interactions
    n_users: int

    @property
    def n_items(self) -> int:
        """The number of item codes, including the unknown item."""
        return len(self.log.created)

    @property
    def user_ids(self) -> Ids:
        """The ids of the known users."""
        return self.timeline.users.first(self.n_users)

    @property
    def item_ids(self) -> Ids:
        """The ids of the known items."""
        return self.timeline.items.first(self.n_items)

    @property
    def catalogue(self) -> Catalogue:
        """The columns of the known items."""
        return self.timeline.catalogue.first(self.n_items - 1)

    def seen_items(self, exported: SeenItems | None) -> SeenItems:
        """What each known user has seen: as exported, and clicked since."""
        clicked = self.timeline.seen_before(self.log.end)
        return clicked.first(self.n_users).joined(exported, self.n_items - 1)

    @cached_property
    def active_users(self) -> Tensor:
        """Codes of the users with a click since the bundle's training, and of new users, ascending.
        → [B].
        """
        since = self.log.time >= self.timeline.window.cutoff_ms
        new = torch.arange(len(self.timeline.encoder.user_ids), self.n_users)
        codes: Tensor = torch.cat([self.log.user[since], new]).unique()
        return codes

    @cached_property
    def _trained_items(self) -> Interactions:
        """The clicks on items that the towers were trained on: histories hold only these."""
        trained = self.timeline.encoder.prepared.schema.items
        log = self.log.without(self.log.item >= trained)
        return replace(log, prior=log.prior.of_items(trained))

    def embed_items(self, exported: Floats) -> Floats:
        """The vector of each known item. exported: the bundle's own [N, D] → [N or more, D], row =
        code - 1.

        With item activity, features depend on the time, so all items are embedded; without it, only
        the items that are new since the bundle.
        """
        encoder = self.timeline.encoder
        own = encoder.prepared
        prepared = Prepared(self.log, own.users, self.timeline.item_table, own.scale, own.schema)
        if encoder.config.features.activity.enabled:
            return embed_items(encoder.model, prepared, encoder.config)
        first = len(exported) + 1
        if self.n_items <= first:
            return exported
        new = embed_items(encoder.model, prepared, encoder.config, first)
        return np.concatenate([exported, new])

    @torch.no_grad()
    def embed_users(self, codes: Tensor) -> Floats:
        """Vectors of users from their clicks so far. codes: [B] → [B, D].

        The context is that of a user's latest click, on any item.
        """
        features = self.timeline.encoder.config.features
        parts = codes.split(users_per_batch(features))
        return torch.cat([self._embed_users(part) for part in parts]).numpy()

    def _embed_users(self, codes: Tensor) -> Tensor:
        encoder = self.timeline.encoder
        now = torch.full_like(codes, self.log.end)
        length = encoder.config.features.history.length
        history = self._trained_items.history(codes, now, length)[0]
        context = self.log.history(codes, now, 1)[1]
        inputs = user_inputs(self.timeline.user_table, codes, history, context, now)
        return encoder.model.users(inputs)

    def hot_list(self, exported: HotList | None) -> HotList | None:
        """The hot list as of now for new users, None if the bundle has no list."""
        return most_clicked(self.log, self.timeline.encoder.config) if exported else None

    def embed_all_users(self, exported: Floats) -> Floats:
        """The vector of each known user, the unknown user first. exported: [U + 1, D] → [n_users,
        D].

        Only active users are embedded; the others keep the exported vector.
        """
        new = np.zeros((self.n_users - len(exported), exported.shape[1]), np.float32)
        vectors = np.concatenate([exported, new])
        if len(self.active_users):
            vectors[self.active_users.numpy()] = self.embed_users(self.active_users)
        return vectors


def trained_window(config: Config) -> Window:
    """The train window of a bundle. Raises ConfigError if its split is not by days."""
    if not isinstance(config.split, Days):
        raise ConfigError(
            f"a model with split.kind {config.split.kind!r} cannot be refreshed: this split has no"
            " cutoff time. Train with split.kind 'days'"
        )
    window: Window = config.split.window(config.data.zone)
    return window


def _first_of_users(rows: pd.DataFrame, users: Ids) -> Tensor:
    """Time of each user's first row, ms; NEVER where there is none. → [users]."""
    time = torch.from_numpy(rows[TIME].to_numpy(np.int64, copy=True))
    return _first_click(torch.from_numpy(users.encode(rows[USER])), time, len(users))


def _first_click(code: Tensor, time: Tensor, codes: int) -> Tensor:
    """Time of each code's first click, ms; NEVER where there is none. code, time: [n] → [codes]."""
    return torch.full((codes,), NEVER).scatter_reduce(0, code, time, "amin")


def _known_since(first: Tensor, own: int) -> Tensor:
    """The time from which on each code is known; the first `own` codes always are. [codes] →
    [codes].
    """
    return first.index_fill(0, torch.arange(own), NO_CREATION_TIME)
