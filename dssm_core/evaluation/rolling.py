"""The protocol `rolling`: each part of the test day is answered by what was known when it began.

The rows are those of the daily protocol: the first click of a user on an item counts, and is looked
for in the list that the user would have got at the refresh before it. Recall is averaged over the
same users, so that the figures stand beside the daily ones.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq

from dssm_core import families, metrics
from dssm_core.aliases import JSON, Bools, Floats, Ints
from dssm_core.columns import HOUR_MS, ITEM, TIME, USER
from dssm_core.config import Config
from dssm_core.evaluation.evaluate import (
    QUERIES_AT_ONCE,
    Search,
    Timed,
    Vectors,
    answer,
    list_search,
    nearest,
    one_list,
)
from dssm_core.evaluation.queries import Slice, Window, positives
from dssm_core.families import BASELINES
from dssm_core.features.histories import Histories
from dssm_core.features.popularity import Clicks, top
from dssm_core.metrics import Relevant
from dssm_core.retrieval.bundle import Bundle, open_bundle
from dssm_core.retrieval.indexes.faiss_flat import FaissFlat
from dssm_core.retrieval.indexes.protocol import Index
from dssm_core.retrieval.new_users import HotList
from dssm_core.retrieval.snapshots import LatestTables, Snapshot, Timeline
from dssm_core.runs.layout import ITEM_EMBEDDINGS_FILE, TEST_FILE, TRAIN_FILE, table_file
from dssm_core.runs.run import Run

OURS = ("served", "exact", "daily", "ceiling")
SLICES = ("warm", "all", "new_items")


@dataclass(frozen=True)
class TestRows:
    """What is to be found, by time. All [P]: external ids; part: refreshes since the cutoff; warm:
    user and item are in train;
    new_items: the item is not.
    """

    users: pd.Series[Any]
    items: pd.Series[Any]
    part: Ints
    warm: Bools
    new_items: Bools


@dataclass(frozen=True)
class Rolled:
    """The place of each row in the list of each answerer, [P], 0 the first; a list's length where
    it is not on it.
    """

    rows: TestRows
    places: dict[str, Ints]

    def scores(self, name: str, which: str, config: Config) -> JSON:
        """recall@k: the share of a user's rows that was found, mean over users, with its interval;
        micro_recall@k: of all rows.
        """
        kept, ks = (
            np.ones_like(self.rows.warm) if which == "all" else getattr(self.rows, which),
            config.evaluation.ks,
        )
        place, user = self.places[name][kept], pd.factorize(self.rows.users[kept])[0]
        if not len(place):
            return {f"{kind}@{k}": None for kind in ("recall", "micro_recall") for k in ks}
        shares = {k: np.bincount(user, place < k) / np.bincount(user) for k in ks}
        found: JSON = {f"recall@{k}": float(share.mean()) for k, share in shares.items()}
        found |= {f"micro_recall@{k}": float((place < k).mean()) for k in ks}
        low, high = metrics.bootstrap(
            shares[config.gate.k], config.evaluation.bootstrap, np.random.default_rng(config.seed)
        )
        return found | {f"recall@{config.gate.k}_low": low, f"recall@{config.gate.k}_high": high}

    def by_part(self, name: str, k: int) -> list[float | None]:
        """Share of each part's rows that was found in the first k places; None where a part has
        none.
        """
        rows, found = (
            np.bincount(self.rows.part),
            np.bincount(self.rows.part, self.places[name] < k),
        )
        return [
            float(hits / count) if count else None for hits, count in zip(found, rows, strict=True)
        ]


def report(run: Run, window: Window, folder: Path) -> JSON:
    """The bundle in `folder`, refreshed through the run's test days, beside itself as exported
    (`daily`) and what is fitted as often.

    For each slice as evaluate has it; `by_part` is micro recall@(gate.k) of all rows, refresh by
    refresh.
    """
    config, k = run.config, run.config.gate.k
    rolled = roll(run, window, folder)
    names = [chosen.name for chosen in config.evaluation.baselines]
    counts = {
        "warm": int(rolled.rows.warm.sum()),
        "all": len(rolled.rows.part),
        "new_items": int(rolled.rows.new_items.sum()),
    }
    found: JSON = {"refresh_h": refresh_h(config), "rows": counts}
    for which in SLICES:
        told = {name: rolled.scores(name, which, config) for name in rolled.places}
        found[which] = {name: told.pop(name) for name in OURS} | {
            "baselines": {name: told.pop(name) for name in names}
        }
        for (
            name,
            scores,
        ) in told.items():  # what each window would have reached: nobody could have chosen by it
            baseline, _, hours = name.partition("/")
            found[which]["baselines"][baseline].setdefault("by_window", {})[hours] = scores[
                f"recall@{k}"
            ]
    return found | {
        "by_part": {name: rolled.by_part(name, k) for name in ("served", "daily", *names)}
    }


def refreshed(run: Run, window: Window, folder: Path) -> JSON:
    """The scores of a bundle alone, refreshed through the run's test days, on its warm rows."""
    return roll(run, window, folder, beside=False).scores("served", "warm", run.config)


def refresh_h(config: Config) -> int:
    """Hours between two refreshes."""
    assert config.evaluation.rolling is not None
    return config.evaluation.rolling.refresh_h


def roll(run: Run, window: Window, folder: Path, beside: bool = True) -> Rolled:
    """Ask, refresh by refresh, what the rows until the next one should find. beside: not the bundle
    alone.
    """
    config, bundle = run.config, open_bundle(folder)
    context = [feature.column for feature in bundle.config.features.columns.context]
    moments, rows, k = (
        Timeline.of(folder, clicks_of(run, context)),
        rows_of(run, window),
        max(config.evaluation.ks),
    )
    exported: Floats = np.load(folder / ITEM_EMBEDDINGS_FILE, mmap_mode="r", allow_pickle=False)
    places: dict[str, Ints] = {}
    for part in np.unique(rows.part).tolist():
        moment, at = (
            moments.as_of(window.cutoff_ms + part * refresh_h(config) * HOUR_MS),
            np.flatnonzero(rows.part == part),
        )
        query, asked = _queries(moment, rows.users.iloc[at])
        wanted = moments.items.encode(rows.items.iloc[at]) - 1
        items, users, hot = (
            moment.items(exported),
            _vectors(moment.all_users(bundle.user_vectors), asked.codes),
            moment.hot(bundle.hot),
        )
        searches = {"served": _nearest(bundle, bundle.member, items, users, hot)}
        if beside:
            old = _vectors(
                bundle.user_vectors,
                np.where(asked.codes < len(bundle.user_vectors), asked.codes, 0),
            )
            searches |= {"exact": _nearest(bundle, FaissFlat(), items, users, hot)}
            searches |= {"daily": _nearest(bundle, bundle.member, exported, old, bundle.hot)}
            searches |= _fitted(moment, asked, config) | {
                "ceiling": _wanted_most(wanted, moment.n_items - 1)
            }
        for name, search in searches.items():
            found = _places(search, asked, query, wanted, k, config.evaluation.exclude_seen)
            places.setdefault(name, np.full(len(rows.part), k))[at] = found
    return Rolled(rows, places)


def clicks_of(run: Run, context: list[str]) -> LatestTables:
    """All positives of a run, train and test, with the context columns that there are; its users
    and items.
    """
    files, beside = (
        [run.step("split_by_time") / table_file(part) for part in ("train", "test")],
        run.step("validate_data"),
    )
    columns = [
        USER,
        ITEM,
        TIME,
        *(name for name in context if name in pq.read_schema(files[0]).names),
    ]
    clicks = pd.concat([positives(file, columns) for file in files], ignore_index=True)
    tables = (
        pd.read_parquet(file) if (file := beside / table_file(f"{side}s")).is_file() else None
        for side in ("user", "item")
    )
    return LatestTables(clicks, *tables)


def rows_of(run: Run, window: Window) -> TestRows:
    """The first click of each user on each item in the test days, as the daily protocol counts
    them.
    """
    folder = run.step("split_by_time")
    test = positives(folder / TEST_FILE, [USER, ITEM, TIME]).drop_duplicates(
        [USER, ITEM], ignore_index=True
    )
    train = positives(folder / TRAIN_FILE, [USER, ITEM])
    known = test[ITEM].isin(train[ITEM]) & (window.items.encode(test[ITEM]) > 0)
    part = (test[TIME].to_numpy(np.int64) - window.cutoff_ms) // (refresh_h(run.config) * HOUR_MS)
    return TestRows(
        test[USER],
        test[ITEM],
        part,
        (known & test[USER].isin(train[USER])).to_numpy(),
        ~known.to_numpy(),
    )


def _queries(moment: Snapshot, users: pd.Series[Any]) -> tuple[Ints, Slice]:
    """Each row's query, and the queries: the users of the rows [P], with what each is known to have
    taken by now.
    """
    query, names = pd.factorize(users)
    codes, seen = moment.of.users.encode(names), moment.of.clicks_before(moment.log.end)
    place = np.full(len(moment.of.users), -1)
    place[codes] = np.arange(len(codes))
    asks = place[moment.of.user[:seen].numpy()]
    past = Histories.of(asks[asks >= 0], moment.of.item[:seen].numpy()[asks >= 0] - 1, len(codes))
    nothing = Relevant.of(
        np.zeros(0, np.int64), np.zeros(0, np.int64), len(codes), moment.n_items - 1
    )
    known = np.where(codes < moment.n_users, codes, 0)
    return query, Slice(np.asarray(names), known, nothing, past, np.full(len(codes), -1))


def _vectors(users: Floats, codes: Ints) -> Vectors:
    """Each query's vector; code 0 is nobody who is known. users: [U + 1, D], codes: [Q]."""
    return Vectors(users, codes, codes == 0)


def _nearest(
    bundle: Bundle, member: Index, items: Floats, users: Vectors, hot: HotList | None
) -> Search:
    """An index of items [N, D] as a refresh builds it, asked by users."""
    return nearest(
        member, member.build(items, bundle.config.seed, bundle.user_vectors[1:]), users, hot
    )


def _fitted(moment: Snapshot, asked: Slice, config: Config) -> dict[str, Search]:
    """Each baseline as of now; also each list that it chose among, `name/variant`."""
    seen, as_of = moment.of.clicks_before(moment.log.end), moment.log.end
    user, item, time = (
        part[:seen].numpy() for part in (moment.of.user, moment.of.item, moment.of.time)
    )
    clicks, searches = Clicks(user, item - 1, time, moment.n_items - 1), {}
    for chosen in config.evaluation.baselines:
        member = families.build(BASELINES, chosen)
        searches[chosen.name] = list_search(
            Timed(member.fit(clicks, as_of), {}, 0.0), asked.histories
        )
        for name, rows in member.variants(clicks, as_of).items():
            searches[f"{chosen.name}/{name}"] = one_list(rows)
    return searches


def _wanted_most(wanted: Ints, n_items: int) -> Search:
    """The best list that all could share: what most rows [P] want, of the items that are known."""
    return one_list(
        top(n_items, np.bincount(wanted[(wanted >= 0) & (wanted < n_items)], minlength=n_items))
    )


def _places(
    search: Search, asked: Slice, query: Ints, wanted: Ints, k: int, exclude_seen: bool
) -> Ints:
    """The place of each row's item among the first k of its query's list, k where it is not there.
    query, wanted: [P] → [P].
    """
    found = np.full(len(query), k)
    for first in range(0, len(asked.codes), QUERIES_AT_ONCE):
        last = min(first + QUERIES_AT_ONCE, len(asked.codes))
        rows = answer(search, asked, first, last, k, exclude_seen)
        at = np.flatnonzero((query >= first) & (query < last) & (wanted >= 0))
        same = rows[query[at] - first] == wanted[at, None]
        found[at] = np.where(same.any(1), same.argmax(1), k)
    return found
