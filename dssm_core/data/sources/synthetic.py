"""A seeded news log: the default source, which a model can learn and whose truth is known.

Articles are published through the day, become popular within hours and fade; their popularity is
Zipf-like. Each user belongs to a segment with a taste over categories and has a taste of their own.
A click at an hour picks a category by taste times the category's appeal at that hour, then an
article of the category by its appeal. Recent popularity helps a recommender, and the user's taste
helps more.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Annotated, Any, ClassVar

import numpy as np
import pyarrow as pa
from duckdb import DuckDBPyConnection
from pydantic import BaseModel, ConfigDict, Field

from dssm_core.aliases import Doubles, Ints
from dssm_core.columns import CREATED, DAY_MS, HOUR_MS, ITEM, TIME, USER
from dssm_core.data.sources.protocol import LogTables

DEVICES = ("mobile", "desktop", "tablet")
TAGS_PER_CATEGORY = 5
SKIPPED_AT_ONCE = 1_000_000  # random numbers
State = Any  # the state of a PCG64, as numpy gives it


@dataclass(frozen=True)
class Articles:
    """category [I], created [I] in ms since the start (negative: before it), weight [I]; sorted by
    category.
    """

    category: Ints
    created: Doubles
    weight: Doubles


class Synthetic(BaseModel):
    """A generated log of news articles and their readers."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)
    timed: ClassVar[bool] = True
    ignores: ClassVar[tuple[str, ...]] = ()
    users: Annotated[int, Field(ge=1)] = 10_000
    """Number of users."""
    items: Annotated[int, Field(ge=1)] = 3_000
    """Number of articles."""
    clicks: Annotated[int, Field(ge=1)] = 300_000
    """Number of clicks."""
    days: Annotated[int, Field(ge=1)] = 7
    """Number of days."""
    start: date = date(2024, 3, 1)
    """The first day, UTC."""
    categories: Annotated[int, Field(ge=1)] = 20
    """Number of categories of articles."""
    segments: Annotated[int, Field(ge=1)] = 8
    """Number of segments of users."""
    half_life_h: Annotated[float, Field(gt=0)] = 24.0
    """Hours in which an article loses half of its appeal."""
    seed: Annotated[int, Field(ge=0)] = 7
    """Seed of the log; it does not follow the config's seed."""

    def files(self) -> dict[str, Path]:
        """Empty: the log is generated."""
        return {}

    def read(self, con: DuckDBPyConnection) -> LogTables:
        """interactions (device), users (segment, region), items (created_at, category, tags). The
        interactions are generated while they are read, an hour at a time.
        """
        rng = np.random.default_rng(self.seed)
        articles = self._articles(rng)
        segment, taste, devices = self._users(rng)
        counts = rng.multinomial(self.clicks, np.tile(_day_profile(), self.days) / self.days)
        streams, rest = _streams(rng, self.clicks)
        clicks = Clicks(self, articles, taste, devices, counts, streams)
        region = rest.integers(0, 12, self.users)
        users = pa.table({"segment": segment, "region": region})
        tags = self._tags(rest, articles.category)  # [I, 2]
        items = pa.table(
            {
                CREATED: articles.created.astype(np.int64) + self.start_ms,
                "category": articles.category,
                "tag": tags[:, 0],
                "other": tags[:, 1],
            }
        )
        number = "row_number() OVER () - 1"
        names = ", ".join(f"'{name}'" for name in DEVICES)
        return LogTables(
            con.from_arrow(clicks).project(
                f"concat('u', {USER}) AS {USER}, concat('a', {ITEM}) AS {ITEM}, {TIME},"
                f" [{names}][device + 1] AS device"
            ),
            con.from_arrow(users).project(
                f"concat('u', {number}) AS {USER}, concat('s', segment) AS segment,"
                " concat('r', region) AS region"
            ),
            con.from_arrow(items).project(
                f"concat('a', {number}) AS {ITEM}, {CREATED}, concat('c', category) AS category,"
                " concat('t', tag, '|t', other) AS tags"
            ),
        )

    @property
    def start_ms(self) -> int:
        """When the first day begins, ms UTC."""
        return int(datetime.combine(self.start, datetime.min.time(), UTC).timestamp() * 1000)

    def _articles(self, rng: np.random.Generator) -> Articles:
        """Articles published from two days before the start to the end, more of them in daytime."""
        category = np.sort(rng.integers(0, self.categories, self.items))
        day = rng.integers(-2, self.days, self.items)
        hour = rng.choice(24, self.items, p=_day_profile()) + rng.random(self.items)
        rank = rng.permutation(self.items) + 1.0
        return Articles(
            category, np.floor(day * DAY_MS + hour * HOUR_MS), np.asarray(rank**-0.8, np.float64)
        )

    def _users(self, rng: np.random.Generator) -> tuple[Ints, Doubles, Doubles]:
        """Segment [U]; taste [U, C], half the segment's and half the user's own, rows sum to 1;
        shares of devices [U, 3].
        """
        segment = rng.integers(0, self.segments, self.users)
        shared = rng.dirichlet(np.full(self.categories, 0.15), self.segments)
        taste = rng.dirichlet(np.full(self.categories, 0.08), self.users)
        taste *= 0.5
        for number, row in enumerate(shared):
            taste[segment == number] += 0.5 * row
        return segment, taste, rng.dirichlet((2.0, 1.0, 0.3), self.users)

    def appeal(self, articles: Articles, hour: int) -> Doubles:
        """Appeal [I] of each article at the start of an hour: 0 before it is published, rising for
        about 2 hours, then halving every `half_life_h` hours.
        """
        age = hour - articles.created / HOUR_MS  # [I] hours
        rise = 1 - np.exp(-np.maximum(age, 0) / 2)
        return np.asarray(articles.weight * rise * 0.5 ** (np.maximum(age, 0) / self.half_life_h))

    def _tags(self, rng: np.random.Generator, category: Ints) -> Ints:
        """Two of the category's tags for each article. [I] → [I, 2]"""
        drawn = rng.integers(0, TAGS_PER_CATEGORY, (len(category), 2))
        return np.asarray(category[:, None] * TAGS_PER_CATEGORY + drawn)


@dataclass(frozen=True)
class Streams:
    """The states of the random numbers of all clicks, where those of the users, the items, the
    times and the devices begin.
    """

    user: State
    item: State
    time: State
    device: State


@dataclass(frozen=True)
class Clicks:
    """The clicks of a log as a stream of Arrow batches, one for each hour, in time order: numbers
    of users, items and devices. It can be read several times.

    taste: [U, C]; devices: [U, 3]; counts: [hours], clicks of each hour.
    """

    log: Synthetic
    articles: Articles
    taste: Doubles
    devices: Doubles
    counts: Ints
    streams: Streams

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        """The stream, for DuckDB."""
        names = (USER, ITEM, TIME, "device")
        schema = pa.schema([(name, pa.int64()) for name in names])
        arrays = ([pa.array(part) for part in hour] for hour in self._hours())
        batches = (pa.record_batch(hour, schema=schema) for hour in arrays)
        return pa.RecordBatchReader.from_batches(schema, batches).__arrow_c_stream__()

    def _hours(self) -> Iterator[tuple[Ints, Ints, Ints, Ints]]:
        """User, item, time (ms) and device of the clicks of each hour, in time order."""
        activity = (np.arange(self.log.users) + 10.0) ** -0.7
        edges = np.cumsum(activity / activity.sum())
        edges /= edges[-1]
        users, items, times, devices = map(_generator, vars(self.streams).values())
        for hour, count in enumerate(self.counts.tolist()):
            user = edges.searchsorted(users.random(count), side="right")
            appeal = self.log.appeal(self.articles, hour)
            item = _draw(items, self.articles, appeal, self.taste, user)
            time = self.log.start_ms + hour * HOUR_MS + times.integers(0, HOUR_MS, count)
            order = np.argsort(time, kind="stable")
            device = _pick(devices, self.devices[user[order]])
            yield user[order], item[order], time[order], device


def _streams(rng: np.random.Generator, clicks: int) -> tuple[Streams, np.random.Generator]:
    """Where the random numbers of `clicks` clicks begin in a generator, and the generator after
    them.

    A click takes a number for its user, two for its item, one for its device and some for its
    time: only those of the time must be drawn to be skipped.
    """
    user = rng.bit_generator.state
    time = _ahead(user, 3 * clicks)
    skipped = _generator(time)
    for first in range(0, clicks, SKIPPED_AT_ONCE):
        skipped.integers(0, HOUR_MS, min(SKIPPED_AT_ONCE, clicks - first))
    device = skipped.bit_generator.state
    streams = Streams(user, _ahead(user, clicks), time, device)
    return streams, _generator(_ahead(device, clicks))


def _ahead(state: State, numbers: int) -> State:
    """The state after so many doubles. They leave the half of an integer that waits for its use."""
    ahead = np.random.PCG64()
    ahead.state = state
    halves = {name: state[name] for name in ("has_uint32", "uinteger")}
    return {**ahead.advance(numbers).state, **halves}


def _generator(state: State) -> np.random.Generator:
    bits = np.random.PCG64()
    bits.state = state
    return np.random.Generator(bits)


def _day_profile() -> Doubles:
    """Share of a day's clicks in each hour [24]: fewest at 4:00, most at 16:00."""
    profile = 1.0 + 0.8 * np.cos((np.arange(24) - 16) / 24 * 2 * np.pi)
    return np.asarray(profile / profile.sum())


def _pick(rng: np.random.Generator, shares: Doubles) -> Ints:
    """A random column for each row [N] of shares [N, K], by inverse transform sampling."""
    edges = np.cumsum(shares, axis=1)
    draw = rng.random(len(shares)) * edges[:, -1]
    return np.asarray(np.minimum((edges <= draw[:, None]).sum(axis=1), shares.shape[1] - 1))


def _draw(
    rng: np.random.Generator, articles: Articles, appeal: Doubles, taste: Doubles, user: Ints
) -> Ints:
    """An article [N] for each user [N]: a category by taste times the category's appeal, then an
    article of the category by appeal.
    """
    offer = np.bincount(articles.category, appeal, minlength=taste.shape[1])  # [C]
    offer = offer if offer.any() else np.ones_like(offer)
    # the constant keeps every category possible
    category = _pick(rng, (taste[user] + 1e-4) * offer)  # [N]
    edges = np.concatenate([[0.0], np.cumsum(appeal)])  # articles are sorted by category
    first = np.searchsorted(articles.category, category, side="left")
    last = np.searchsorted(articles.category, category, side="right")
    low = edges[first]
    target = low + rng.random(len(user)) * (edges[last] - low)
    article = np.searchsorted(edges, target, side="right") - 1
    return np.asarray(np.clip(article, first, np.maximum(last - 1, first)))
