"""A seeded news log: the default source, which a model can learn and whose truth is known.

Articles are published through the day, become popular within hours and fade; their popularity is
Zipf-like. Each user belongs to a segment with a taste over categories and has a taste of their own.
A click at an hour picks a category by taste times the category's appeal at that hour, then an
article of the category by its appeal. Recent popularity helps a recommender, and the user's taste
helps more.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Annotated, ClassVar

import numpy as np
import pyarrow as pa
from duckdb import DuckDBPyConnection
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from dssm_core.aliases import Doubles, Ints
from dssm_core.columns import CREATED, DAY_MS, HOUR_MS, ITEM, TIME, USER
from dssm_core.data.sources.protocol import LogTables

DEVICES = ("mobile", "desktop", "tablet")
TAGS_PER_CATEGORY = 5


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
        """interactions (device), users (segment, region), items (created_at, category, tags)."""
        rng = np.random.default_rng(self.seed)
        articles = self._articles(rng)
        segment, taste, devices = self._users(rng)
        user, item, time = self._clicks(rng, articles, taste)
        device = _pick(rng, devices[user])  # [N]
        start = self._start_ms
        interactions = pa.table(
            {
                USER: _ids("u", user),
                ITEM: _ids("a", item),
                TIME: time + start,
                "device": np.array(DEVICES)[device],
            }
        )
        region = rng.integers(0, 12, self.users)
        users = pa.table(
            {
                USER: _ids("u", np.arange(self.users)),
                "segment": _ids("s", segment),
                "region": _ids("r", region),
            }
        )
        items = pa.table(
            {
                ITEM: _ids("a", np.arange(self.items)),
                CREATED: articles.created.astype(np.int64) + start,
                "category": _ids("c", articles.category),
                "tags": self._tags(rng, articles.category),
            }
        )
        return LogTables(con.from_arrow(interactions), con.from_arrow(users), con.from_arrow(items))

    @property
    def _start_ms(self) -> int:
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
        own = rng.dirichlet(np.full(self.categories, 0.08), self.users)
        return (
            segment,
            0.5 * shared[segment] + 0.5 * own,
            rng.dirichlet((2.0, 1.0, 0.3), self.users),
        )

    def _clicks(
        self, rng: np.random.Generator, articles: Articles, taste: Doubles
    ) -> tuple[Ints, Ints, Ints]:
        """User [N], item [N], time [N] in ms since the start, hour by hour."""
        hours = self.days * 24
        counts = rng.multinomial(self.clicks, np.tile(_day_profile(), self.days) / self.days)
        activity = (np.arange(self.users) + 10.0) ** -0.7
        user = rng.choice(self.users, self.clicks, p=activity / activity.sum())  # [N]
        item = np.empty(self.clicks, np.int64)
        edges = np.concatenate([[0], np.cumsum(counts)])
        for hour in range(hours):
            chunk = slice(edges[hour], edges[hour + 1])
            item[chunk] = _draw(rng, articles, self._appeal(articles, hour), taste, user[chunk])
        time = np.repeat(np.arange(hours), counts) * HOUR_MS + rng.integers(0, HOUR_MS, self.clicks)
        order = np.argsort(time, kind="stable")
        return user[order], item[order], time[order]

    def _appeal(self, articles: Articles, hour: int) -> Doubles:
        """Appeal [I] of each article at the start of an hour: 0 before it is published, rising for
        about 2 hours, then halving every `half_life_h` hours.
        """
        age = hour - articles.created / HOUR_MS  # [I] hours
        rise = 1 - np.exp(-np.maximum(age, 0) / 2)
        return np.asarray(articles.weight * rise * 0.5 ** (np.maximum(age, 0) / self.half_life_h))

    def _tags(self, rng: np.random.Generator, category: Ints) -> list[str]:
        """Two of the category's tags for each article [I], joined by "|"."""
        drawn = rng.integers(0, TAGS_PER_CATEGORY, (len(category), 2))
        pair = category[:, None] * TAGS_PER_CATEGORY + drawn  # [I, 2]
        return list(np.char.add(np.char.add(_ids("t", pair[:, 0]), "|"), _ids("t", pair[:, 1])))


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


def _ids(prefix: str, number: Ints) -> NDArray[np.str_]:
    """Ids as text, such as u17."""
    return np.char.add(prefix, number.astype(str))
