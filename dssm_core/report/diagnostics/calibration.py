"""Whether the sampler draws items as often as it says."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch

from dssm_core.aliases import Doubles
from dssm_core.features.dataset import bucket_times, load_prepared
from dssm_core.features.events import Events, training_events
from dssm_core.features.interactions import Interactions
from dssm_core.runs.run import Run
from dssm_core.sampling.sampler_tables import load_sampler_tables, samplers_of
from dssm_core.sampling.samplers.protocol import Sampler, Tables

DRAWS = 200_000
CELLS = 20_000_000  # events times items, where each event has its own candidates
EVENTS = 100  # where each event has its own candidates


@dataclass(frozen=True)
class Calibration:
    """The items that can be drawn: planned probability and share of the draws, both [n].

    draws: how many draws were made.
    """

    planned: Doubles
    drawn: Doubles
    draws: int

    @property
    def inside(self) -> float:
        """Share of the items whose number of draws is within two standard deviations of the plan:
        about 0.95 for a correct sampler.
        """
        spread = np.sqrt(self.draws * self.planned * (1 - self.planned))
        error = np.abs(self.drawn - self.planned) * self.draws
        return float((error <= np.maximum(2 * spread, 1)).mean())

    @property
    def distance(self) -> float:
        """Total variation between plan and draws, 0 to 1.

        That of a correct sampler goes to 0 as the number of draws grows.
        """
        return float(np.abs(self.planned - self.drawn).sum() / 2)

    @property
    def chance(self) -> float:
        """The distance that chance alone gives: half the sum of the mean absolute deviations of
        normal counts.
        """
        variance = self.planned * (1 - self.planned)
        return float(np.sqrt(2 / np.pi * variance / self.draws).sum() / 2)


def calibration(run: Run) -> Calibration | None:
    """Draw from the run's sampler as of its last refresh, and count.

    None where the loss compares with every item.
    """
    first = next(iter(samplers_of(run.config).items()), None)
    if first is None:
        return None
    name, sampler = first
    folder = run.step("sample_negatives")
    interactions = load_prepared(folder).log
    tables = load_sampler_tables(folder, "refit", name)
    times = bucket_times(run.config, interactions)
    return draw(sampler, tables, interactions, times, run.config.seed)


def draw(
    sampler: Sampler, tables: Tables, log: Interactions, as_of: torch.Tensor, seed: int
) -> Calibration:
    """Draw candidates of the last bucket that has events, and compare with `log_q`.

    Where each event has its own candidates, up to EVENTS events are taken together.
    """
    events = _last_events(log, as_of)
    codes = len(log.created)
    bucket = int(events.bucket.max())
    rows = (events.bucket == bucket).nonzero().squeeze(1)
    if sampler.own:
        most = max(1, min(EVENTS, CELLS // codes, len(rows)))
        rows = rows[torch.linspace(0, len(rows) - 1, most).long()]
    asked = events.each(lambda part: part[rows])
    draws = max(1, DRAWS // len(rows)) if sampler.own else DRAWS
    generator = torch.Generator().manual_seed(seed)
    drawn = sampler.draw(tables, bucket, draws, asked, generator).flatten()
    items = torch.arange(1, codes)
    candidates = items.expand(len(rows), -1) if sampler.own else items
    probability = sampler.log_q(tables, bucket, candidates, asked).double().exp()
    planned = (probability.mean(0) if sampler.own else probability).numpy()
    counts = torch.bincount(drawn, minlength=codes)[1:].numpy()
    possible = (planned > 0) | (counts > 0)
    return Calibration(planned[possible], counts[possible] / len(drawn), len(drawn))


def _last_events(log: Interactions, times: torch.Tensor) -> Events:
    """The training events since the last refresh; all of them if it has none."""
    first = int(torch.searchsorted(log.time, times[-1]))
    names = ("user", "item", "time", "weight", "impression")
    parts = {name: getattr(log, name)[first:] for name in names}
    events = training_events(replace(log, **parts) if first else log, times)
    return events if len(events.user) else training_events(log, times)
