"""What training minimises: a batch of events against the candidates they share."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import torch
from torch import Tensor

from dssm_core import families
from dssm_core.config import Config
from dssm_core.families import LOSSES
from dssm_core.features.dataset import Prepared, bucket_times
from dssm_core.features.events import Events
from dssm_core.features.inputs import item_inputs
from dssm_core.features.interactions import Interactions
from dssm_core.models.two_tower import TwoTower
from dssm_core.sampling.sampler_tables import load_sampler_tables, samplers_of
from dssm_core.sampling.samplers.protocol import Sampler, Tables, side_by_side
from dssm_core.training.batches import Batch, examples
from dssm_core.training.logits import Comparison


@dataclass(frozen=True)
class Candidates:
    """What every event of a batch is compared with, and how each came there.

    items: codes, [C], or [B, C] where each event has its own; samplers: (sampler, its tables, how
    many of the candidates it gave), one or two of them, none where the candidates are the whole
    catalogue. users: [C] whose items they are, -1 for drawn ones; None where all are drawn.
    """

    items: Tensor
    bucket: int
    users: Tensor | None
    samplers: list[tuple[Sampler, Tables, int]]

    def log_count(self, items: Tensor, events: Events) -> Tensor:
        """Log of how often each item is expected among the candidates, log(sum of C * q). items:
        [n] or [B, n] → the same.
        """
        if not self.samplers:
            return torch.zeros(items.shape, device=items.device)
        each = [
            math.log(count) + sampler.log_q(tables, self.bucket, items, events)
            for sampler, tables, count in self.samplers
        ]
        return torch.stack(each).logsumexp(0)


class Objective:
    """The loss of a batch, on the events and sampler tables that a phase may know.

    log: the phase's log, on the device; samples: the folder that `sample_negatives` wrote.
    """

    def __init__(
        self, config: Config, prepared: Prepared, log: Interactions, samples: Path, phase: str
    ) -> None:
        device = log.user.device
        self.config, self.log, self.items, self.scale = config, log, prepared.items, prepared.scale
        self.times = bucket_times(config, prepared.log)
        self.examples = examples(config, log, prepared.users, self.times)
        self.loss, self.samplers = families.build(LOSSES, config.loss), samplers_of(config)
        tables = {name: load_sampler_tables(samples, phase, name) for name in self.samplers}
        self.tables = {
            name: {key: table.to(device) for key, table in of.items()}
            for name, of in tables.items()
        }

    def __call__(self, model: TwoTower, rows: Tensor, generator: torch.Generator) -> Tensor:
        """Loss of the batch at `rows` (on the CPU, as `examples.batches` gives them). → []."""
        batch = self.examples.take(rows, generator)
        compared = self._compare(
            model, batch, self._candidates(batch.bucket, batch.events, generator), generator
        )
        fused = self.loss.fused(compared) if compared.candidate.dim() == 2 else None
        return cast(Tensor, self.loss(compared.logits) if fused is None else fused)

    def _compare(
        self, model: TwoTower, batch: Batch, candidates: Candidates, generator: torch.Generator
    ) -> Comparison:
        """Vectors of every event's user, its own item and the candidates; each distinct item is
        embedded once.
        """
        events, features = batch.events, self.config.features
        users = (
            model.users(batch.inputs)
            if batch.positions is None
            else model.users(batch.inputs, True).flatten(0, 1)[batch.positions]
        )
        distinct, place = torch.cat([events.item, candidates.items.flatten()]).unique(
            return_inverse=True
        )
        inputs = item_inputs(
            self.log, self.items, distinct, int(self.times[batch.bucket]), features, self.scale
        )
        if self.config.train.id_dropout:
            shown = (
                torch.rand(distinct.shape, generator=generator, device=distinct.device)
                >= self.config.train.id_dropout
            )
            inputs = inputs._replace(item=torch.where(shown, distinct, 0))
        embedded = model.items(inputs)
        vectors = embedded.float().index_select(
            0, place
        )  # its gradient is summed in one order, and in full precision
        own, others = vectors.split([len(events.item), candidates.items.numel()])
        return Comparison(
            user=users,
            own=own,
            candidate=others.view(*candidates.items.shape, -1),
            temperature=torch.ones_like(model.temperature)
            if self.loss.on_scores
            else model.temperature,
            own_items=events.item,
            candidate_items=candidates.items,
            log_count_positive=candidates.log_count(events.item[:, None], events).squeeze(1),
            log_count_negative=candidates.log_count(candidates.items, events),
            catalogue=len(self.log.created) - 1,
            whole=not self.samplers,
            own_users=events.user,
            candidate_users=candidates.users,
            rows=batch.rows,
        )

    def _candidates(self, bucket: int, events: Events, generator: torch.Generator) -> Candidates:
        """What the samplers draw (the batch's own items among it, where the loss wants them); every
        item, where there is none.
        """
        if not self.samplers:
            return Candidates(
                torch.arange(1, len(self.log.created), device=events.item.device), bucket, None, []
            )
        count = self.config.train.negatives
        drawn = {
            name: sampler.draw(self.tables[name], bucket, count, events, generator)
            for name, sampler in self.samplers.items()
        }
        given = [
            (sampler, self.tables[name], drawn[name].shape[-1])
            for name, sampler in self.samplers.items()
        ]
        users = [
            events.user
            if part[0].from_batch
            else torch.full_like(events.user[:1], -1).expand(part[2])
            for part in given
        ]
        from_batch = any(sampler.from_batch for sampler, _, _ in given)
        return Candidates(
            side_by_side(list(drawn.values())),
            bucket,
            torch.cat(users) if from_batch else None,
            given,
        )
