"""Candidates of each event without the items that its user has clicked, as tutorials draw them with
`np.random.choice`.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import ClassVar, Self

import torch
from pydantic import BaseModel, ConfigDict, model_validator
from torch import Tensor

from dssm_core import families
from dssm_core.config import Member
from dssm_core.families import SAMPLERS
from dssm_core.features.events import Events
from dssm_core.features.interactions import Interactions
from dssm_core.sampling.samplers.mixed import build_inner
from dssm_core.sampling.samplers.protocol import (
    Bucket,
    FittedIds,
    Tables,
    categorical_of_all,
    draw_categorical,
)
from dssm_core.sampling.samplers.user_item_pairs import pair_keys, place_of

WORTH_A_THREAD = 1 << 15  # draws
ROUNDS = 32  # of rejection, before what is left is drawn from the rest of the distribution at once


class Unseen(BaseModel):
    """From the distribution of another sampler, without the user's own items, of train and from
    before the log: exactly, because draws of own items are repeated. A user who has clicked
    everything that can be drawn gets own items.

    Shapes are not fixed: how many draws are repeated depends on the draws, and on a CPU a compiled
    loop draws them.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)
    own: ClassVar[bool] = True
    draws_positives: ClassVar[bool] = False
    from_batch: ClassVar[bool] = False
    fixed_shapes: ClassVar[bool] = False
    same_for_all: ClassVar[bool] = False
    ignores: ClassVar[tuple[str, ...]] = ()
    of: Member = Member(kind="uniform")
    """The other sampler, with its settings. It must have one distribution for all events."""

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if not build_inner(self.of).same_for_all:
            kinds = [kind for kind in SAMPLERS if families.load(SAMPLERS, kind).same_for_all]
            raise ValueError(
                f"sampler.of is {self.of.kind!r}, but 'unseen' draws from one for all events:"
                f" give one of {', '.join(kinds)}"
            )
        return self

    @property
    def even(self) -> bool:
        """Whether the other sampler draws its items alike."""
        return bool(build_inner(self.of).even)

    def files(self) -> dict[str, Path]:
        """None: only the log is read."""
        return {}

    def fit(self, log: Interactions, as_of: Tensor, ids: FittedIds) -> Tables:
        """The distribution as an alias table over all codes; each user's own items, sorted, and
        what they leave of it.
        """
        base, codes = build_inner(self.of), len(log.created)
        anyone = Events(log.user[:1], log.item[:1], torch.zeros_like(log.user[:1]), log.time[:1])
        tables = base.fit(log, as_of, ids)
        tables = categorical_of_all(
            base.log_q(tables, 0, torch.arange(1, codes), anyone).double().exp()
        )
        users = int(log.user.max()) + 1
        own = [log.user, log.prior.user], [log.item, log.prior.item]
        user, item = map(torch.cat, own)
        keys = pair_keys(user[user < users], item[user < users], codes)
        taken = torch.zeros(users, dtype=torch.double).index_add_(
            0, keys // codes, tables["share"][keys % codes - 1]
        )
        keys = keys[(taken < 1 - 1e-9)[keys // codes]]
        ptr = torch.searchsorted(keys, torch.arange(users + 1) * codes)
        left = torch.where(taken < 1 - 1e-9, 1 - taken, 1.0)
        narrow = {
            "keep": tables["keep"].float(),
            "alias": tables["alias"].int(),
            "taken": (keys % codes).int(),
        }  # more fits the cache
        return (
            tables
            | narrow
            | {"keys": keys, "of_user": ptr, "left": left, "codes": torch.tensor(codes)}
        )

    def draw(
        self, tables: Tables, bucket: Bucket, count: int, events: Events, generator: torch.Generator
    ) -> Tensor:
        """[B, count] item codes: compiled on the CPU, in array operations on a GPU; each from the
        generator alone.
        """
        if generator.device.type == "cpu":
            return draw_compiled(tables, events.user, count, generator)
        return draw_by_rejection(tables, events.user, count, generator)

    def log_q(self, tables: Tables, bucket: Bucket, items: Tensor, events: Events) -> Tensor:
        """items: [B, n] → [B, n]."""
        share = tables["share"][items - 1] / tables["left"][events.user][:, None]
        return share.masked_fill(_taken(tables, events.user[:, None], items), 0.0).log().float()


def _taken(tables: Tables, user: Tensor, item: Tensor) -> Tensor:
    return place_of(tables["keys"], user * tables["codes"] + item)[1]


def draw_compiled(tables: Tables, user: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Rows shared out among threads; each row's random numbers follow from the seed and its number
    alone. → [B, count].
    """
    from dssm_core.sampling.samplers.numba_kernels import draw_unseen

    seed = int(torch.randint(1 << 62, (), generator=generator))
    names = ("keep", "alias", "share", "of_user", "taken")
    arrays = [tables[name].numpy() for name in names]
    out = torch.empty(len(user), count, dtype=torch.int64)
    parts = max(1, min(torch.get_num_threads(), len(user) * count // WORTH_A_THREAD))
    edges = [len(user) * part // parts for part in range(parts + 1)]

    def work(part: int) -> None:
        rows = slice(edges[part], edges[part + 1])
        draw_unseen(user[rows].numpy(), *arrays, seed, edges[part], out[rows].numpy())

    if parts == 1:
        work(0)
    else:
        with ThreadPoolExecutor(parts) as pool:
            list(pool.map(work, range(parts)))
    return out


def draw_by_rejection(
    tables: Tables, user: Tensor, count: int, generator: torch.Generator
) -> Tensor:
    """The same distribution in array operations, on any device. → [B, count]."""
    out = draw_categorical(tables, 0, len(user) * count, generator)
    users = user.repeat_interleave(count)
    again = _taken(tables, users, out).nonzero().squeeze(1)
    for _ in range(ROUNDS):
        if not len(again):
            break
        out[again] = draw_categorical(tables, 0, len(again), generator)
        again = again[_taken(tables, users[again], out[again])]
    for part in again.split(max(1, (1 << 24) // len(tables["share"]))):
        items = tables["items"].expand(len(part), -1)
        left = tables["share"].masked_fill(_taken(tables, users[part][:, None], items), 0.0)
        # The largest of share / exponential noise is each item in proportion to its share.
        noise = torch.empty_like(left).exponential_(generator=generator)
        out[part] = (left / noise).argmax(1) + 1
    return out.reshape(len(user), count)
