"""How well towers in training rank what was held out of the train days, as an index made without it
would have answered.
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

MOST_USERS = 20_000  # an even sample of the users is enough to choose an epoch by
AT_ONCE = 1024  # queries scored at a time


class HeldOutQueries:
    """The queries held out, found once, asked after each epoch. Warm users and items only: in the
    log that is `known`.

    log: the whole train window; what `prepare.selection_log` leaves out of it is relevant.
    """

    def __init__(self, config: Config, log: Interactions) -> None:
        self.features, self.exclude_seen = config.features, config.evaluation.exclude_seen
        self.name, _, k = config.train.metric.partition("@")
        self.k, self.known = int(k), selection_log(config, log)
        self.as_of = self.known.end
        held_out = log.time >= self.as_of if config.split.by_time else log.last_of_each()
        seen = torch.zeros_like(log.created, dtype=torch.bool).index_fill_(0, self.known.item, True)
        if config.features.catalogue == "table" or not seen[log.item[held_out]].any():
            seen = torch.ones_like(
                seen
            )  # items are served that nobody took, or nothing held out was taken before: rank them all
        known = (log.created < self.as_of) if config.split.by_time else seen
        self.items = known[1:].nonzero().squeeze(1) + 1
        pairs = np.unique(
            torch.stack([log.user[held_out], log.item[held_out]], 1).cpu().numpy(), axis=0
        )
        rows = np.searchsorted(self.items.cpu().numpy(), pairs[:, 1])
        held = np.isin(pairs[:, 0], self.known.user.cpu().numpy()) & np.isin(
            pairs[:, 1], self.items.cpu().numpy()
        )
        users = np.unique(pairs[held, 0])
        if not len(users):
            raise DataError(
                "no user of the validation slice was seen before it: give more split.train_days to validate on"
            )
        users = users[np.linspace(0, len(users) - 1, min(MOST_USERS, len(users))).astype(np.int64)]
        held &= np.isin(pairs[:, 0], users)
        query = np.searchsorted(users, pairs[held, 0])
        self.relevant = Relevant.of(query, rows[held], len(users), len(self.items))
        self.users = torch.from_numpy(users).to(log.user.device)

    @torch.no_grad()
    def score(self, model: TwoTower, prepared: Prepared) -> float:
        """Mean of train.metric over the users by exact search; NaN where the towers give no
        numbers.
        """
        inputs = item_inputs(
            self.known, prepared.items, self.items, self.as_of, self.features, prepared.scale
        )
        vectors = model.items(inputs)
        if not vectors.isfinite().all():
            return math.nan

        def top(part: Tensor) -> Tensor:
            queries = model.users(
                users_as_of(
                    self.known,
                    prepared.users,
                    part,
                    torch.full_like(part, self.as_of),
                    self.features,
                )
            )
            scores = similarity(queries, vectors)
            return (
                (self._without_seen(scores, part) if self.exclude_seen else scores)
                .topk(min(self.k, len(vectors)), dim=1)
                .indices
            )

        found = torch.cat([top(part) for part in self.users.split(AT_ONCE)]).cpu().numpy()
        return float(
            METRICS[self.name](self.relevant.hits(found), self.relevant.counts, self.k).mean()
        )

    def _without_seen(self, scores: Tensor, users: Tensor) -> Tensor:
        """-inf for what each user took before. scores: [B, N]; users: [B] codes."""
        order, ptr = self.known.sequences()
        query, place = ranges(ptr[users], ptr[users + 1])
        column = torch.searchsorted(self.items, self.known.item[order[place]])
        return scores.index_put_((query, column), torch.tensor(-torch.inf, device=scores.device))
