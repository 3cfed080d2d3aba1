"""The validation metric: how well the towers rank interactions held out of the train window.

The metric chooses the number of epochs. Exact search is used, as if an index had been built without
the held-out interactions.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from dssm_core.config import Config
from dssm_core.errors import DataError
from dssm_core.features.dataset import Prepared, selection_log
from dssm_core.features.inputs import item_inputs, users_as_of
from dssm_core.features.interactions import Interactions
from dssm_core.features.ragged import ranges
from dssm_core.metrics import METRICS, Relevant
from dssm_core.models.two_tower import TwoTower
from dssm_core.training.logits import similarity

MAX_USERS = 20_000  # an evenly spaced sample of users is enough to choose an epoch
QUERIES_PER_BATCH = 1024


class HeldOutQueries:
    """The held-out queries of a training, prepared once and used after each epoch.

    Only users and items with an interaction before the validation slice count. log: the whole train
    window; `selection_log` says which of its interactions are held out.
    """

    def __init__(self, config: Config, log: Interactions) -> None:
        self.features = config.features
        self.exclude_seen = config.evaluation.exclude_seen
        self.metric, _, k = config.train.chosen_by.partition("@")
        self.k = int(k)
        self.known = selection_log(config, log)
        self.as_of = self.known.end
        held_out = log.time >= self.as_of if config.split.by_time else log.last_of_each()
        self.items = self._candidate_items(config, log, held_out)
        items = self.items.cpu().numpy()
        pairs = torch.stack([log.user[held_out], log.item[held_out]], 1).cpu().numpy()
        pairs = np.unique(pairs, axis=0)  # [n, 2] user and item codes
        warm = np.isin(pairs[:, 0], self.known.user.cpu().numpy()) & np.isin(pairs[:, 1], items)
        users = np.unique(pairs[warm, 0])
        if not len(users):
            raise DataError(
                "no user of the validation slice has an interaction before it, and one in it with"
                " an item that is known and available at its start: give more split.train_days, or"
                " check the times of the items"
            )
        sample = np.linspace(0, len(users) - 1, min(MAX_USERS, len(users))).astype(np.int64)
        users = users[sample]
        pairs = pairs[warm & np.isin(pairs[:, 0], users)]
        query = np.searchsorted(users, pairs[:, 0])
        rows = np.searchsorted(items, pairs[:, 1])
        self.relevant = Relevant.of(query, rows, len(users), len(items))
        self.users = torch.from_numpy(users).to(log.user.device)

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
    def score(self, model: TwoTower, prepared: Prepared) -> float:
        """The mean of the metric over the users; NaN if the item vectors are not finite."""
        inputs = item_inputs(
            self.known, prepared.items, self.items, self.as_of, self.features, prepared.scale
        )
        vectors = model.items(inputs)
        if not vectors.isfinite().all():
            return math.nan
        parts = self.users.split(QUERIES_PER_BATCH)
        top = torch.cat([self._top_rows(model, prepared, part, vectors) for part in parts])
        hits = self.relevant.hits(top.cpu().numpy())
        return float(METRICS[self.metric](hits, self.relevant.counts, self.k).mean())

    def _top_rows(
        self, model: TwoTower, prepared: Prepared, users: Tensor, vectors: Tensor
    ) -> Tensor:
        """Rows of the k best items of each user. users: [B] codes; vectors: [N, D] → [B, k]."""
        as_of = torch.full_like(users, self.as_of)
        inputs = users_as_of(self.known, prepared.users, users, as_of, self.features)
        scores = similarity(model.users(inputs), vectors)
        if self.exclude_seen:
            scores = self._mask_seen(scores, users)
        return scores.topk(min(self.k, len(vectors)), dim=1).indices

    def _mask_seen(self, scores: Tensor, users: Tensor) -> Tensor:
        """Set the score of each user's known items to -inf. scores: [B, N]; users: [B] codes."""
        order, ptr = self.known.sequences()
        query, position = ranges(ptr[users], ptr[users + 1])
        item = self.known.item[order[position]]
        column = torch.searchsorted(self.items, item).clamp(max=len(self.items) - 1)
        ranked = self.items[column] == item
        lowest = torch.tensor(-torch.inf, device=scores.device)
        return scores.index_put_((query[ranked], column[ranked]), lowest)
