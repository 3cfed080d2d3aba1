"""The rolling protocol: each part of the test days is answered by what was known when it began.

The rows are those of the daily protocol: the first click of a user on an item counts. It is looked
up in the list that the user would have got at the refresh before it. Recall is averaged over the
same users as in the daily protocol, so that the figures can be compared.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq

from dssm_core import metrics
from dssm_core.aliases import JSON, Bools, Doubles, Floats, Ints
from dssm_core.columns import HOUR_MS, ITEM, TIME, USER
from dssm_core.config import Config
from dssm_core.evaluation.answers import (
    QueryVectors,
    Search,
    answer,
    chunks,
    list_search,
    nearest,
    one_list,
)
from dssm_core.evaluation.fitting import fit_baselines
from dssm_core.evaluation.queries import EvaluationData, ListRules, Slice, positives
from dssm_core.features.histories import Histories
from dssm_core.features.popularity import Clicks, top
from dssm_core.metrics import Relevant
from dssm_core.retrieval.bundle import Bundle
from dssm_core.retrieval.indexes.faiss_flat import FaissFlat
from dssm_core.retrieval.indexes.protocol import Index
from dssm_core.retrieval.item_index import build_item_index
from dssm_core.retrieval.new_users import HotList
from dssm_core.retrieval.snapshots import LatestTables, Snapshot, Timeline
from dssm_core.runs.gate_report import RefreshedAnswers, RollingReport, Scores
from dssm_core.runs.layout import ITEM_EMBEDDINGS_FILE, TEST_FILE, TRAIN_FILE, table_file
from dssm_core.runs.run import Run

SLICES = ("warm", "all", "new_items")


@dataclass(frozen=True)
class RollingRows:
    """The test rows by time, all [P].

    users, items: external ids; part: number of the refresh before the row; warm: user and item are
    in the training set; new_items: the item is not.
    """

    users: pd.Series[Any]
    items: pd.Series[Any]
    part: Ints
    warm: Bools
    new_items: Bools

    def select(self, name: str) -> Bools:
        """The rows of a slice: `warm`, `all` or `new_items`. [P]"""
        masks = {
            "warm": self.warm,
            "all": np.ones_like(self.warm),
            "new_items": self.new_items,
        }
        return masks[name]


@dataclass(frozen=True)
class Rolled:
    """The position of each row's item in the list of each answerer.

    positions: by answerer [P], 0 is the first; the list's length where the item is not listed.
    variants: position of the rows by baseline and variant.
    """

    rows: RollingRows
    positions: dict[str, Ints]

    def scores(self, name: str, slice_name: str, config: Config) -> dict[str, float | None]:
        """Recall and micro recall of an answerer on a slice, for each k.

        recall@k: share of a user's rows that was found, mean over users, with its interval;
        micro_recall@k: share of all rows.
        """
        ks = config.evaluation.ks
        position = self.positions[name][self.rows.select(slice_name)]
        if not len(position):
            return {f"{kind}@{k}": None for kind in ("recall", "micro_recall") for k in ks}
        shares = {k: self.recalls(name, slice_name, k) for k in ks}
        scores: dict[str, float | None] = {f"recall@{k}": float(shares[k].mean()) for k in ks}
        scores |= {f"micro_recall@{k}": float((position < k).mean()) for k in ks}
        rng = np.random.default_rng(config.seed)
        low, high = metrics.bootstrap(shares[config.gate.k], config.evaluation.bootstrap, rng)
        return scores | {f"{config.gate.metric}_low": low, f"{config.gate.metric}_high": high}

    def recalls(self, name: str, slice_name: str, k: int) -> Doubles:
        """Share of each user's rows in a slice that was found in the first k positions. [Q]"""
        mask = self.rows.select(slice_name)
        user = pd.factorize(self.rows.users[mask])[0]
        shares: Doubles = np.bincount(user, self.positions[name][mask] < k) / np.bincount(user)
        return shares

    def by_part(self, name: str, k: int) -> list[float | None]:
        """Share of the rows found in the first k positions, by refresh; None without rows."""
        rows = np.bincount(self.rows.part)
        hits = np.bincount(self.rows.part, self.positions[name] < k)
        return [float(hit / n) if n else None for hit, n in zip(hits, rows, strict=True)]


def report(rolled: Rolled, config: Config) -> RollingReport:
    """The figures of a bundle, refreshed through the test days, beside the same bundle without
    refreshes (`daily`) and baselines that are fitted as often.
    """
    names = [chosen.name for chosen in config.evaluation.baselines]
    slices = {name: _by_answerer(rolled, name, names, config) for name in SLICES}
    return RollingReport(
        refresh_h=refresh_h(config),
        rows={name: int(rolled.rows.select(name).sum()) for name in SLICES},
        warm=slices["warm"],
        all=slices["all"],
        new_items=slices["new_items"],
        by_part={name: rolled.by_part(name, config.gate.k) for name in ("served", "daily", *names)},
    )


def _by_answerer(
    rolled: Rolled, slice_name: str, baselines: list[str], config: Config
) -> RefreshedAnswers:
    scores = {name: rolled.scores(name, slice_name, config) for name in rolled.positions}
    fitted: dict[str, JSON] = {name: dict(scores[name]) for name in baselines}
    for name in rolled.positions:
        baseline, _, variant = name.partition("/")
        if variant:  # for the report: the test rows choose no variant
            by_window = fitted[baseline].setdefault("by_window", {})
            by_window[variant] = scores[name][config.gate.metric]
    return RefreshedAnswers(
        served=Scores(scores["served"]),
        exact=Scores(scores["exact"]),
        daily=Scores(scores["daily"]),
        ceiling=Scores(scores["ceiling"]),
        baselines={name: Scores(each) for name, each in fitted.items()},
    )


def refresh_h(config: Config) -> int:
    """Hours between two refreshes."""
    assert config.evaluation.rolling is not None
    return config.evaluation.rolling.refresh_h


def roll(run: Run, data: EvaluationData, bundle: Bundle, beside: bool = True) -> Rolled:
    """Ask, refresh by refresh, for the rows until the next refresh.

    beside: measure exact search, the bundle without refreshes, baselines and ceiling as well.
    """
    config = run.config
    context = [feature.column for feature in bundle.config.features.columns.context]
    timeline = Timeline.of(bundle.folder, clicks_of(run, context))
    rows = rolling_rows(run, data)
    k = max(config.evaluation.ks)
    exported: Floats = np.load(
        bundle.folder / ITEM_EMBEDDINGS_FILE, mmap_mode="r", allow_pickle=False
    )
    positions: dict[str, Ints] = {}
    for part in np.unique(rows.part).tolist():
        snapshot = timeline.as_of(data.cutoff_ms + part * refresh_h(config) * HOUR_MS)
        selected = np.flatnonzero(rows.part == part)
        query, queries = _queries(snapshot, rows.users.iloc[selected], config)
        relevant = timeline.items.encode(rows.items.iloc[selected]) - 1
        searches = _searches(snapshot, bundle, queries, exported, beside)
        if beside:
            searches |= _baselines(snapshot, queries, config)
            searches["ceiling"] = _ceiling(relevant, snapshot.n_items - 1)
        for name, search in searches.items():
            found = _positions(search, queries, query, relevant, k)
            positions.setdefault(name, np.full(len(rows.part), k))[selected] = found
    return Rolled(rows, positions)


def clicks_of(run: Run, context: list[str]) -> LatestTables:
    """All positives of a run, train and test, with the context columns that the log has; and its
    tables of users and items.
    """
    files = [run.step("split_by_time") / file for file in (TRAIN_FILE, TEST_FILE)]
    held = pq.read_schema(files[0]).names
    columns = [USER, ITEM, TIME, *(name for name in context if name in held)]
    clicks = pd.concat([positives(file, columns) for file in files], ignore_index=True)
    tables = [run.step("validate_data") / table_file(name) for name in ("users", "items")]
    users, items = (pd.read_parquet(file) if file.is_file() else None for file in tables)
    return LatestTables(clicks, users, items)


def rolling_rows(run: Run, data: EvaluationData) -> RollingRows:
    """The first click of each user on each item in the test days, as in the daily protocol."""
    folder = run.step("split_by_time")
    test = positives(folder / TEST_FILE, [USER, ITEM, TIME])
    test = test.drop_duplicates([USER, ITEM], ignore_index=True)
    train = positives(folder / TRAIN_FILE, [USER, ITEM])
    seen_item = test[ITEM].isin(train[ITEM]) & (data.items.encode(test[ITEM]) > 0)
    seen_user = test[USER].isin(train[USER])
    elapsed_ms = test[TIME].to_numpy(np.int64) - data.cutoff_ms
    return RollingRows(
        users=test[USER],
        items=test[ITEM],
        part=elapsed_ms // (refresh_h(run.config) * HOUR_MS),
        warm=(seen_item & seen_user).to_numpy(),
        new_items=~seen_item.to_numpy(),
    )


def _queries(snapshot: Snapshot, users: pd.Series[Any], config: Config) -> tuple[Ints, Slice]:
    """The query of each row [P], and the queries: the distinct users, with what each has taken
    before the snapshot.
    """
    query, names = pd.factorize(users)
    codes = snapshot.timeline.users.encode(names)
    seen = snapshot.timeline.clicks_before(snapshot.log.end)
    query_of_user = np.full(len(snapshot.timeline.users), -1)
    query_of_user[codes] = np.arange(len(codes))
    asking = query_of_user[snapshot.timeline.user[:seen].numpy()]
    items = snapshot.timeline.item[:seen].numpy() - 1
    past = Histories.of(asking[asking >= 0], items[asking >= 0], len(codes))
    none = np.zeros(0, np.int64)
    nothing = Relevant.of(none, none, len(codes), snapshot.n_items - 1)
    known = np.where(codes < snapshot.n_users, codes, 0)
    allowed = snapshot.catalogue.allowed(config.serving.filters, snapshot.log.end)
    rules = ListRules(snapshot.n_items - 1, allowed, config.evaluation.exclude_seen)
    latest = np.full(len(codes), -1)
    return query, Slice(np.asarray(names), known, nothing, past, latest, rules.eligible(past))


def _searches(
    snapshot: Snapshot, bundle: Bundle, queries: Slice, exported: Floats, beside: bool
) -> dict[str, Search]:
    """The refreshed index; with `beside` also exact search and the bundle as it was exported."""
    items = snapshot.embed_items(exported)
    users = _vectors(snapshot.embed_all_users(bundle.user_vectors), queries.codes)
    hot = snapshot.hot_list(bundle.hot)
    member = bundle.index.member
    searches = {"served": _nearest(bundle, member, items, users, hot)}
    if beside:
        codes = np.where(queries.codes < len(bundle.user_vectors), queries.codes, 0)
        daily = _vectors(bundle.user_vectors, codes)
        searches["exact"] = _nearest(bundle, FaissFlat(), items, users, hot)
        before = _nearest(bundle, member, exported, daily, bundle.hot)
        searches["daily"] = lambda first, last, k, eligible: before(
            first, last, k, eligible.among_first(len(exported))
        )
    return searches


def _vectors(users: Floats, codes: Ints) -> QueryVectors:
    """The vector of each query; code 0 is an unknown user. users: [U + 1, D], codes: [Q]."""
    return QueryVectors(users, codes, codes == 0)


def _nearest(
    bundle: Bundle, member: Index, items: Floats, users: QueryVectors, hot: HotList | None
) -> Search:
    """An index of items [N, D], built as a refresh builds it."""
    queries = bundle.user_vectors[1:]
    return nearest(build_item_index(member, items, bundle.config.seed, queries), users, hot)


def _baselines(snapshot: Snapshot, queries: Slice, config: Config) -> dict[str, Search]:
    """Each baseline as of the snapshot, and each of its variants as `name/variant`."""
    as_of_ms = snapshot.log.end
    seen = snapshot.timeline.clicks_before(as_of_ms)
    user = snapshot.timeline.user[:seen].numpy()
    item = snapshot.timeline.item[:seen].numpy()
    time = snapshot.timeline.time[:seen].numpy()
    clicks = Clicks(user, item - 1, time, snapshot.n_items - 1)
    searches = {}
    for name, baseline in fit_baselines(config, clicks, as_of_ms).items():
        searches[name] = list_search(baseline, queries.histories)
        for variant, rows in baseline.variants.items():
            searches[f"{name}/{variant}"] = one_list(rows)
    return searches


def _ceiling(relevant: Ints, n_items: int) -> Search:
    """The best list that all queries could share: the known items that most rows [P] look for."""
    known = relevant[(relevant >= 0) & (relevant < n_items)]
    return one_list(top(n_items, np.bincount(known, minlength=n_items)))


def _positions(search: Search, queries: Slice, query: Ints, relevant: Ints, k: int) -> Ints:
    """The position of each row's item in the first k of its query's list, k if not listed: [P].

    query, relevant: [P], the query and the item row of each row.
    """
    positions = np.full(len(query), k)
    for first, last in chunks(len(queries.codes)):
        rows = answer(search, queries, first, last, k)
        selected = np.flatnonzero((query >= first) & (query < last) & (relevant >= 0))
        same = rows[query[selected] - first] == relevant[selected, None]
        positions[selected] = np.where(same.any(1), same.argmax(1), k)
    return positions
