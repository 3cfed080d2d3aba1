"""Negatives drawn per second by each sampler, on a made-up week of news clicks."""

from __future__ import annotations

import argparse
import time
from statistics import median

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from dssm_core import families
from dssm_core.batches import Events
from dssm_core.config import Member
from dssm_core.features import Log
from dssm_core.samplers import SAMPLERS
from dssm_core.schema import DAY_MS


def made_up_log(clicks: int, items: int, days: int = 6) -> Log:
    """Zipf-like clicks on items, evenly over the days; only what samplers read is filled in."""
    generator = torch.Generator().manual_seed(0)
    weights = 1 / torch.arange(1, items + 1).double()
    item = torch.multinomial(weights, clicks, replacement=True, generator=generator) + 1
    when = torch.randint(days * DAY_MS, (clicks,), generator=generator).sort().values
    created = torch.full((items + 1,), days * DAY_MS).scatter_reduce(0, item, when, "amin")
    nothing = torch.zeros(clicks, 0, dtype=torch.int64)
    return Log(torch.ones_like(item), item, when, nothing, created, torch.tensor([0, days * DAY_MS]))


def rate(kind: str, log: Log, as_of: Tensor, count: int, repeats: int) -> float:
    """Median draws per second; in_batch hands back the batch and is not drawn from."""
    sampler = families.build(SAMPLERS, Member(kind=kind))
    tables, generator = sampler.fit(log, as_of, {}), torch.Generator().manual_seed(0)
    batch = Events(log.user[:1024], log.item[:1024], torch.zeros_like(log.item[:1024]), log.time[:1024])
    seconds = []
    for _ in range(repeats + 1):  # the first one warms up
        started = time.perf_counter()
        sampler.draw(tables, len(as_of) - 1, count, batch, generator)
        seconds.append(time.perf_counter() - started)
    return count / median(seconds[1:])


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clicks", type=int, default=1_300_000)
    parser.add_argument("--items", type=int, default=22_000)
    parser.add_argument("--draws", type=int, nargs="+", default=[1024, 100_000, 2_000_000], help="negatives per call")
    parser.add_argument("--repeats", type=int, default=15)
    args = parser.parse_args()
    log = made_up_log(args.clicks, args.items)
    as_of = torch.arange(1, 6) * DAY_MS
    table = Table("sampler", *(f"{draws:,} a call" for draws in args.draws), title="million negatives a second")
    for kind in sorted(set(SAMPLERS) - {"in_batch"}):
        table.add_row(kind, *(f"{rate(kind, log, as_of, draws, args.repeats) / 1e6:.1f}" for draws in args.draws))
    Console().print(table)


if __name__ == "__main__":
    main()
