"""Negatives drawn per second by each sampler, on a made-up week of news clicks; and the row-wise
loops of the tutorials.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from functools import partial
from statistics import median
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from dssm_core import families
from dssm_core.columns import DAY_MS
from dssm_core.config import Member
from dssm_core.families import SAMPLERS
from dssm_core.features.events import Events
from dssm_core.features.interactions import Interactions
from dssm_core.sampling.samplers.protocol import Sampler, Tables

SHARED = ("active", "frequency_bands", "popularity", "ralm", "uniform")
OWN: dict[str, dict[str, Any]] = {
    "unseen, uniform": {"kind": "unseen"},
    "unseen, popularity": {"kind": "unseen", "of": {"kind": "popularity", "alpha": 0.75}},
}
NEGATIVES = 10


def made_up_log(clicks: int, items: int, users: int, days: int = 6) -> Interactions:
    """Zipf-like clicks on items, evenly over users and days; only what samplers read is set."""
    generator = torch.Generator().manual_seed(0)
    weights = 1 / torch.arange(1, items + 1).double()
    item = torch.multinomial(weights, clicks, replacement=True, generator=generator) + 1
    user = torch.randint(1, users + 1, (clicks,), generator=generator)
    when = torch.randint(days * DAY_MS, (clicks,), generator=generator).sort().values
    created = torch.full((items + 1,), days * DAY_MS).scatter_reduce(0, item, when, "amin")
    return Interactions(
        user,
        item,
        when,
        torch.zeros(clicks, 0, dtype=torch.int64),
        created,
        torch.tensor([0, days * DAY_MS]),
    )


def fitted(settings: dict[str, Any], log: Interactions, as_of: Tensor) -> tuple[Sampler, Tables]:
    """A sampler and its tables."""
    sampler: Sampler = families.build(SAMPLERS, Member.model_validate(settings))
    return sampler, sampler.fit(log, as_of, {})


def seconds(work: Callable[[], object], repeats: int) -> tuple[float, float]:
    """Median wall-clock and CPU time of a call after a warm-up; CPU time counts all threads."""
    times = []
    for _ in range(repeats + 1):
        wall, cpu = time.perf_counter(), time.process_time()
        work()
        times.append((time.perf_counter() - wall, time.process_time() - cpu))
    return median(wall for wall, _ in times[1:]), median(cpu for _, cpu in times[1:])


def all_rows(log: Interactions) -> Events:
    """Every click as an event."""
    return Events(log.user, log.item, torch.zeros_like(log.item), log.time)


def notebook_loop(users: list[int], clicked: dict[int, set[int]], known: Any) -> None:
    """A row at a time: draw evenly, throw away what the user has clicked, until there are enough
    (as tutorials do).
    """
    rng = np.random.default_rng(0)
    for user in users:
        found: list[int] = []
        while len(found) < NEGATIVES:
            item = int(rng.choice(known))
            if item not in clicked[user]:
                found.append(item)


def weighted_loop(users: list[int], known: Any, share: Any) -> None:
    """A row at a time: np.random.choice by popularity, without exclusion."""
    rng = np.random.default_rng(0)
    for _ in users:
        rng.choice(known, NEGATIVES, p=share)


def shared_table(log: Interactions, draws: list[int], repeats: int) -> Table:
    """Candidates that a batch shares, so many a call."""
    as_of = torch.arange(1, 6) * DAY_MS
    table = Table(
        "sampler",
        *(f"{count:,} a call" for count in draws),
        title="million negatives a second, shared by a batch",
    )
    batch = Events(*(part[:1024] for part in vars(all_rows(log)).values()))
    for kind in SHARED:
        sampler, tables = fitted({"kind": kind}, log, as_of)
        generator = torch.Generator().manual_seed(0)
        took = [
            seconds(partial(sampler.draw, tables, 4, count, batch, generator), repeats)[0]
            for count in draws
        ]
        table.add_row(
            kind, *(f"{count / each / 1e6:.1f}" for count, each in zip(draws, took, strict=True))
        )
    return table


def own_table(log: Interactions, repeats: int, loop_rows: int) -> Table:
    """10 negatives a row for every click of the log, the user's own items excluded; the loops on
    some rows.
    """
    title = (
        f"{NEGATIVES} negatives a row, {torch.get_num_threads()} threads: thousand rows a second"
    )
    table = Table("what", "of wall-clock time", "of CPU time", title=title)

    def add(name: str, work: Callable[[], object], rows: int, repeats: int) -> None:
        table.add_row(name, *(f"{rows / took / 1e3:,.1f}" for took in seconds(work, repeats)))

    events, generator = all_rows(log), torch.Generator().manual_seed(0)
    for name, settings in OWN.items():
        sampler, tables = fitted(settings, log, torch.tensor([0]))
        add(
            name,
            partial(sampler.draw, tables, 0, NEGATIVES, events, generator),
            len(log.user),
            repeats,
        )
    users, known = log.user.tolist(), np.arange(1, len(log.created))
    clicked: dict[int, set[int]] = {}
    for user, item in zip(users, log.item.tolist(), strict=True):
        clicked.setdefault(user, set()).add(item)
    share = torch.bincount(log.item, minlength=len(log.created))[1:].double().pow(0.75)
    add(
        "a loop, until unseen",
        partial(notebook_loop, users[:loop_rows], clicked, known),
        loop_rows,
        1,
    )
    add(
        "a loop of choice(p=…), nothing excluded",
        partial(weighted_loop, users[:loop_rows], known, (share / share.sum()).numpy()),
        loop_rows,
        1,
    )
    return table


def main() -> None:
    """Print two tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clicks", type=int, default=1_300_000)
    parser.add_argument("--items", type=int, default=22_000)
    parser.add_argument("--users", type=int, default=100_000)
    parser.add_argument(
        "--draws",
        type=int,
        nargs="+",
        default=[1024, 100_000, 2_000_000],
        help="negatives per call",
    )
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument(
        "--loop-rows", type=int, default=5_000, help="rows that the loops are timed on"
    )
    args = parser.parse_args()
    log = made_up_log(args.clicks, args.items, args.users)
    Console().print(shared_table(log, args.draws, args.repeats))
    Console().print(own_table(log, args.repeats, args.loop_rows))


if __name__ == "__main__":
    main()
