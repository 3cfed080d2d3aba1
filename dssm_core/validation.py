"""Recall of towers in training on the last train day, as a daily index made at its start would have answered."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from dssm_core.config import Features
from dssm_core.errors import DataError
from dssm_core.features import Log, item_inputs, users_as_of
from dssm_core.logits import similarity
from dssm_core.metrics import Relevant, recall
from dssm_core.prepare import Prepared
from dssm_core.two_tower import TwoTower

MOST_USERS = 20_000  # an even sample of the day's users is enough to choose an epoch by
AT_ONCE = 2048  # queries scored at a time


class Validation:
    """The validation day's queries, found once, asked after each epoch.

    log: the whole train window; as_of: ms, the day's start. Warm users and items only: seen before `as_of`.
    """

    def __init__(self, log: Log, as_of: int) -> None:
        self.known, self.as_of = log.before(as_of), as_of
        codes = torch.arange(1, len(log.created), device=log.created.device)
        self.items = codes[log.created[1:] < as_of]
        begin = int(torch.searchsorted(log.time, as_of))
        pairs = np.unique(torch.stack([log.user[begin:], log.item[begin:]], 1).cpu().numpy(), axis=0)
        rows = np.searchsorted(self.items.cpu().numpy(), pairs[:, 1])
        held = np.isin(pairs[:, 0], self.known.user.cpu().numpy()) & np.isin(pairs[:, 1], self.items.cpu().numpy())
        users = np.unique(pairs[held, 0])
        if not len(users):
            raise DataError("no user of the last train day was seen before it: give more split.train_days to validate on")
        users = users[np.linspace(0, len(users) - 1, min(MOST_USERS, len(users))).astype(np.int64)]
        held &= np.isin(pairs[:, 0], users)
        query = np.searchsorted(users, pairs[held, 0])
        self.relevant = Relevant.of(query, rows[held], len(users), len(self.items))
        self.users = torch.from_numpy(users).to(log.user.device)

    @torch.no_grad()
    def recall(self, model: TwoTower, prepared: Prepared, features: Features, k: int) -> float:
        """Mean recall@k over the day's users by exact search; NaN where the towers give no numbers."""
        inputs = item_inputs(self.known, prepared.items, self.items, self.as_of, features, prepared.scale)
        vectors = model.items(inputs)
        if not vectors.isfinite().all():
            return math.nan

        def top(part: Tensor) -> Tensor:
            queries = model.users(users_as_of(self.known, prepared.users, part, torch.full_like(part, self.as_of), features))
            return similarity(queries, vectors).topk(min(k, len(vectors)), dim=1).indices

        found = torch.cat([top(part) for part in self.users.split(AT_ONCE)]).cpu().numpy()
        return float(recall(self.relevant.hits(found), self.relevant.counts, k).mean())
