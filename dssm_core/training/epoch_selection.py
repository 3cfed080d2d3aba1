"""The validation metric: how well the towers rank interactions held out of the train window.

The metric chooses the number of epochs. Exact search is used, as if an index had been built without
the held-out interactions.
"""

from __future__ import annotations

import math
from itertools import repeat

import numpy as np
import torch
from torch import Tensor

from dssm_core.aliases import Bools, Doubles, Ints
from dssm_core.config import Config
from dssm_core.errors import DataError
from dssm_core.features.dataset import Prepared, selection_log
from dssm_core.features.inputs import item_inputs, users_as_of
from dssm_core.features.interactions import Interactions
from dssm_core.features.ragged import ranges
from dssm_core.metrics import METRICS, Relevant
from dssm_core.models.two_tower import TwoTower
from dssm_core.training.logits import similarity
from dssm_core.training.ranks import ALONE, Ranks

MAX_QUERIES = 20_000  # an evenly spaced sample is enough to choose an epoch
QUERIES_PER_BATCH = 1024


class HeldOutQueries:
    """The held-out queries of a training, prepared once and used after each epoch.

    Only users and items with an interaction before the validation slice count; with
    features.first_context new users too, which ask with the context of their first held-out
    interaction. log: the whole train window; `selection_log` says which of its interactions are
    held out.

    A query is a user with all held-out items. With weights (data.weight), each held-out user and
    item are a query, which counts by its weight: epochs are chosen by what training aims at.
    """

    def __init__(self, config: Config, log: Interactions) -> None:
        self.features = config.features
        self.exclude_seen = config.evaluation.exclude_seen
        self.metric, _, k = config.train.chosen_by.partition("@")
        self.k = int(k)
        self.known = selection_log(config, log)
        self.as_of = self.known.end
        held_out = log.time >= self.as_of if config.split.by_time else log.last_of_each()
        held_out &= log.counts
        self.items = self._candidate_items(config, log, held_out)
        items = self.items.cpu().numpy()
        pairs = torch.stack([log.user[held_out], log.item[held_out]], 1).cpu().numpy()
        # [n, 2] user and item codes, and the pair of each interaction
        pairs, pair = np.unique(pairs, axis=0, return_inverse=True)
        warm = np.isin(pairs[:, 1], items)
        if not self.features.first_context:
            warm &= np.isin(pairs[:, 0], self.known.user.cpu().numpy())
        if not warm.any():
            raise DataError(
                "no user of the validation slice has an interaction before it, and one in it with"
                " an item that is known and available at its start: give more split.train_days,"
                " check the times of the items, or set features.first_context to true if users are"
                " sessions"
            )
        weight = None
        if log.weighted:
            each = log.weight[held_out].double().cpu().numpy()
            weight = np.bincount(pair.ravel(), each).astype(np.float64)
        self._ask(pairs, warm, weight, log.user.device)
        self.own = self._contexts(log, held_out) if self.features.first_context else None

    def _ask(self, pairs: Ints, warm: Bools, weight: Doubles | None, device: torch.device) -> None:
        """Make at most MAX_QUERIES queries of the warm pairs. All [n]."""
        if weight is None:
            users = _evenly(np.unique(pairs[warm, 0]))
            chosen = (warm & np.isin(pairs[:, 0], users)).nonzero()[0]
            query = np.searchsorted(users, pairs[chosen, 0])
            user_of = np.arange(len(users))
        else:
            chosen = _evenly(warm.nonzero()[0])
            users, user_of = np.unique(pairs[chosen, 0], return_inverse=True)
            query = np.arange(len(chosen))
        items = self.items.cpu().numpy()
        rows = np.searchsorted(items, pairs[chosen, 1])
        self.relevant = Relevant.of(query, rows, len(user_of), len(items))
        self.weight = None if weight is None else weight[chosen]  # [Q]
        self.users = torch.from_numpy(users).to(device)
        self.user_of = user_of  # [Q], the row of each query's user in `users`

    def _contexts(self, log: Interactions, held_out: Tensor) -> Tensor:
        """The context of the first held-out interaction of each of `users`. → [users, columns]."""
        rows = held_out.nonzero().squeeze(1)
        first = rows.new_full((int(log.user.max()) + 1,), len(log.user))
        first = first.scatter_reduce(0, log.user[rows], rows, "amin")
        return log.context[first[self.users]]

    def _candidate_items(self, config: Config, log: Interactions, held_out: Tensor) -> Tensor:
        """Codes of the items that are ranked, ascending. → [N]."""
        if config.split.by_time:
            known = (log.created < self.as_of) & log.available(self.as_of)
        else:
            known = torch.zeros_like(log.created, dtype=torch.bool)
            known = known.index_fill_(0, self.known.item, True)
            # Rank all items if items without interactions are served, or if every held-out
            # interaction is the first with its item.
            if config.features.catalogue == "table" or not known[log.item[held_out]].any():
                known = torch.ones_like(known)
        return known[1:].nonzero().squeeze(1) + 1

    @torch.no_grad()
    def score(self, model: TwoTower, prepared: Prepared, ranks: Ranks = ALONE) -> float:
        """The mean of the metric over the queries; NaN if the item vectors are not finite.

        Each rank embeds and searches for its part of the items and users; all return the same.
        """
        own = ranks.own_rows(self.items)
        inputs = item_inputs(
            self.known, prepared.items, own, self.as_of, self.features, prepared.scale
        )
        vectors = ranks.gather(model.items(inputs), len(self.items))
        if not vectors.isfinite().all():
            return math.nan
        users = ranks.own_rows(self.users).split(QUERIES_PER_BATCH)
        contexts = repeat(None)
        if self.own is not None:
            contexts = ranks.own_rows(self.own).split(QUERIES_PER_BATCH)
        parts = zip(users, contexts, strict=False)
        top = torch.cat([self._top_rows(model, prepared, of, vectors, own) for of, own in parts])
        top = ranks.gather(top, len(self.users))
        hits = self.relevant.hits(top.cpu().numpy()[self.user_of])
        values = METRICS[self.metric](hits, self.relevant.counts, self.k)
        return float(np.average(values, weights=self.weight))

    def _top_rows(
        self,
        model: TwoTower,
        prepared: Prepared,
        users: Tensor,
        vectors: Tensor,
        own: Tensor | None = None,
    ) -> Tensor:
        """Rows of the k best items of each user. users: [B] codes; vectors: [N, D]; own: [B,
        columns], the contexts of new users → [B, k].
        """
        as_of = torch.full_like(users, self.as_of)
        inputs = users_as_of(self.known, prepared.users, users, as_of, self.features, own)
        scores = similarity(model.users(inputs), vectors)
        if self.exclude_seen:
            scores = self._mask_seen(scores, users)
        return scores.topk(min(self.k, len(vectors)), dim=1).indices

    def _mask_seen(self, scores: Tensor, users: Tensor) -> Tensor:
        """Set the score of each user's known items to -inf. scores: [B, N]; users: [B] codes."""
        order, ptr = self.known.sequences()
        after = len(ptr) - 1  # where new users, whose codes are behind those of `known`, have none
        begin, end = (ptr[codes.clamp(max=after)] for codes in (users, users + 1))
        query, position = ranges(begin, end)
        item = self.known.item[order[position]]
        if len(self.known.prior):
            older, place = ranges(self.known.prior.ptr[users], self.known.prior.ptr[users + 1])
            query, item = torch.cat([query, older]), torch.cat([item, self.known.prior.item[place]])
        column = torch.searchsorted(self.items, item).clamp(max=len(self.items) - 1)
        ranked = self.items[column] == item
        lowest = torch.tensor(-torch.inf, device=scores.device)
        return scores.index_put_((query[ranked], column[ranked]), lowest)


def _evenly(values: Ints) -> Ints:
    """At most MAX_QUERIES of the values, evenly spaced. [n] → [m]"""
    places = np.linspace(0, len(values) - 1, min(MAX_QUERIES, len(values))).astype(np.int64)
    return values[places]
