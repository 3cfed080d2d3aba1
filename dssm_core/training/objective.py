"""What training minimises: the loss of a batch of events against their candidates."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

import torch
from torch import Tensor

from dssm_core import families
from dssm_core.config import Config
from dssm_core.families import LOSSES, TOWERS
from dssm_core.features import shapes
from dssm_core.features.dataset import Prepared, bucket_times
from dssm_core.features.events import Events
from dssm_core.features.inputs import item_inputs
from dssm_core.features.interactions import Interactions
from dssm_core.models.two_tower import TwoTower
from dssm_core.sampling.sampler_tables import load_sampler_tables, samplers_of
from dssm_core.sampling.samplers.protocol import Sampler, Tables, side_by_side
from dssm_core.training.batches import Batch, examples
from dssm_core.training.epoch_order import Rows, sampled
from dssm_core.training.logits import Availability, BatchVectors
from dssm_core.training.ranks import ALONE, Part, Ranks


@dataclass(frozen=True)
class Candidates:
    """The candidates of a batch, and the samplers that they come from.

    items: [C] codes, or [B, C] if each event has its own. users: [C], whose items the candidates
    are, -1 for drawn ones; None if all are drawn. samplers: (sampler, its tables, log of its number
    of candidates); empty if the candidates are the whole catalogue.
    """

    items: Tensor
    bucket: Tensor
    users: Tensor | None
    samplers: list[tuple[Sampler, Tables, float | Tensor]]

    def log_count(self, items: Tensor, events: Events) -> Tensor:
        """log(sum of C * q): the log of how often each item is expected among the candidates; 0 for
        padding.

        items: [n] or [B, n] → the same shape.
        """
        if not self.samplers:
            return torch.zeros(items.shape, device=items.device)
        log_counts = [
            log_number + sampler.log_q(tables, self.bucket, items, events)
            for sampler, tables, log_number in self.samplers
        ]
        return torch.where(items > 0, torch.stack(log_counts).logsumexp(0), 0)


class Objective:
    """The loss of a batch, from the interactions and sampler tables of one phase of training.

    log: the phase's interactions, on the device. samples: the folder that `sample_negatives` wrote.
    ranks: this process among those that train.
    """

    def __init__(
        self,
        config: Config,
        prepared: Prepared,
        log: Interactions,
        samples: Path,
        phase: str,
        ranks: Ranks = ALONE,
    ) -> None:
        device = log.user.device
        self.config = config
        self.log = log
        self.items = prepared.items
        self.scale = prepared.scale
        self.candidates = prepared.schema.items  # codes below it may be negatives
        self.times = bucket_times(config, prepared.log).to(device)
        self.examples = examples(config, log, prepared.users, self.times)
        self.loss = families.build(LOSSES, config.loss)
        self.samplers = samplers_of(config)
        self.ranks = ranks
        self.padded = shapes.fixed(device) and self.fixed_shapes
        self.masked = self.padded or log.weighted  # whether events of item 0 do not count
        self.tables: dict[str, Tables] = {}
        for name in self.samplers:
            tables = load_sampler_tables(samples, phase, name)
            self.tables[name] = {key: table.to(device) for key, table in tables.items()}

    @property
    def fixed_shapes(self) -> bool:
        """Whether all parts of a step have shapes that follow from the sizes of a batch's rows."""
        return not self.parts_of_changing_shapes

    @property
    def parts_of_changing_shapes(self) -> list[str]:
        """The classes of the parts whose shapes depend on values. Their docstrings say why."""
        kinds = [self.config.tower, self.config.item_tower or self.config.tower]
        towers = [families.build(TOWERS, kind) for kind in kinds]
        parts = [*towers, self.loss, *self.samplers.values(), self.examples, self.ranks]
        return sorted({type(part).__name__ for part in parts if not part.fixed_shapes})

    def batches(self, seed: int, epoch: int = 0) -> list[Rows]:
        """The batches of an epoch, on the device. seed: of their order. epoch: from 0, which events
        are taken if train.events_per_epoch is smaller than their number.
        """
        train = self.config.train
        events = train.events_per_epoch
        part = None
        if events is not None and events < self.examples.count:
            rows = self.examples.rows
            count = max(1, round(rows * events / self.examples.count))
            part = sampled(rows, count, epoch, self.config.seed)
        return self.examples.batches(train.batch_size, seed, self.padded, part)

    def __call__(self, model: TwoTower, rows: Rows, generator: torch.Generator) -> Tensor:
        """The loss of the batch at `rows`, or what this rank adds to it. → []."""
        batch = self.examples.take(rows, generator)
        candidates = self._candidates(batch.bucket, batch.events, generator)
        part = self.ranks.part(batch)
        compared = self._compare(model, batch, part, candidates, generator)
        fused = self.loss.fused(compared) if compared.candidate_items.dim() == 1 else None
        loss = self.loss(compared.logits) if fused is None else fused
        return cast(Tensor, loss * part.share)

    def _compare(
        self,
        model: TwoTower,
        whole: Batch,
        part: Part,
        candidates: Candidates,
        generator: torch.Generator,
    ) -> BatchVectors:
        """Embed the part's users, and the items and candidates of the whole batch; each distinct
        item once.

        Of candidates that each event has for itself, most occur several times in a batch. Scores of
        the distinct ones, [n, d], are then far fewer numbers than vectors of all, [n, C, D].
        """
        batch = part.batch
        events = batch.events
        if batch.positions is None:
            users = model.users(batch.inputs)
        else:
            users = model.users(batch.inputs, True).flatten(0, 1)[batch.positions]
        codes = torch.cat([whole.events.item, candidates.items.flatten()])
        vectors, row = self._embed_items(model, codes, batch.bucket, generator)
        own_row, candidate_row = row.tensor_split([len(whole.events.item)])
        candidate_row = candidate_row.view_as(candidates.items)
        if candidates.items.dim() == 2:
            candidate_row = candidate_row[part.at]
            candidates = replace(candidates, items=candidates.items[part.at])
        own, candidate, place = _of_events(vectors, own_row[part.at], candidate_row)
        temperature = model.temperature
        return BatchVectors(
            user=users,
            own=own,
            candidate=candidate,
            temperature=torch.ones_like(temperature) if self.loss.on_scores else temperature,
            own_items=events.item,
            candidate_items=candidates.items,
            log_count_positive=candidates.log_count(events.item[:, None], events).squeeze(1),
            log_count_negative=candidates.log_count(candidates.items, events),
            catalogue=self.candidates - 1,
            whole=not self.samplers,
            own_users=events.user,
            candidate_users=candidates.users,
            rows=batch.rows,
            availability=self._availability(batch, candidates.items, len(users)),
            present=events.item > 0 if self.masked else None,
            weight=events.weight,
            place=place,
        )

    def _availability(self, batch: Batch, items: Tensor, users: int) -> Availability | None:
        """When the candidates are available. items: [C] or [n, C]; users: rows of user vectors.

        Several events of a user share the user's logits of shared candidates. Such a candidate must
        be available at all of them.
        """
        if not self.log.timed_items:
            return None
        first = last = batch.events.as_of
        if batch.rows is not None and items.dim() == 1:
            empty = first.new_empty(users)
            first = empty.scatter_reduce(0, batch.rows, first, "amin", include_self=False)
            last = empty.scatter_reduce(0, batch.rows, last, "amax", include_self=False)
        since = self.log.available_from[items]
        return Availability(since, self.log.available_until[items], first, last)

    def _embed_items(
        self, model: TwoTower, codes: Tensor, bucket: Tensor, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """Vectors of the distinct items as of the bucket's refresh, and the row of each item among
        them. codes: [n] → [d, D] float32, [n].
        """
        items, row = shapes.distinct(codes, len(self.log.created))
        as_of = self.times[bucket]
        features = self.config.features
        own = self.ranks.own_rows(items)
        inputs = item_inputs(self.log, self.items, own, as_of, features, self.scale)
        dropout = self.config.train.id_dropout
        if dropout:
            noise = torch.rand(items.shape, generator=generator, device=items.device)
            shown = torch.where(noise >= dropout, items, 0)
            inputs = inputs._replace(item=self.ranks.own_rows(shown))
        return self.ranks.gather(model.items(inputs).float(), len(items)), row

    def _candidates(self, bucket: Tensor, events: Events, generator: torch.Generator) -> Candidates:
        """Draw the candidates of a batch from all samplers; without samplers, all items."""
        if not self.samplers:
            items = torch.arange(1, self.candidates, device=events.item.device)
            return Candidates(items, bucket, None, [])
        count = self.config.train.negatives
        parts: list[Tensor] = []
        users: list[Tensor] = []
        samplers: list[tuple[Sampler, Tables, float | Tensor]] = []
        for name, sampler in self.samplers.items():
            tables = self.tables[name]
            items = sampler.draw(tables, bucket, count, events, generator)
            number = items.shape[-1]
            no_user = torch.full_like(events.user[:1], -1).expand(number)
            parts.append(items)
            users.append(events.user if sampler.from_batch else no_user)
            masked = self.masked and sampler.from_batch
            log_number = (items > 0).sum().log() if masked else math.log(number)
            samplers.append((sampler, tables, log_number))
        from_batch = any(sampler.from_batch for sampler in self.samplers.values())
        candidate_users = torch.cat(users) if from_batch else None
        return Candidates(side_by_side(parts), bucket, candidate_users, samplers)


def _of_events(
    vectors: Tensor, own_row: Tensor, candidate_row: Tensor
) -> tuple[Tensor, Tensor, Tensor | None]:
    """The `own`, `candidate` and `place` of BatchVectors. vectors: [d, D], of distinct items;
    own_row: [n], those of the events' items; candidate_row: [C] or [n, C], those of candidates.

    If each event has its own candidates, their vectors [n, C, D] are made only if they are fewer
    numbers than the scores of all distinct items, [n, d].
    """
    shape = candidate_row.shape
    if len(shape) == 2 and len(vectors) <= shape[1] * vectors.shape[1]:
        return vectors.index_select(0, own_row), vectors, candidate_row
    # index_select: its gradient is summed in a fixed order, and here in full precision.
    row = torch.cat([own_row, candidate_row.flatten()])
    own, others = vectors.index_select(0, row).split([len(own_row), candidate_row.numel()])
    return own, others.view(*shape, -1), None
