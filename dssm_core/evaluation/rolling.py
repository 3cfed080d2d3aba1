"""The rolling protocol: each part of the test days is answered by what was known when it began.

The rows are those of the daily protocol: the first click of a user on an item counts. It is looked
up in the list that the user would have got at the refresh before it. Recall is averaged over the
same users as in the daily protocol, so that the figures can be compared.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import torch

from dssm_core.aliases import Floats, Ints
from dssm_core.columns import HISTORIES, HOUR_MS, ITEM, TIME, USER
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
from dssm_core.evaluation.asked import AskedUsers
from dssm_core.evaluation.fitting import fit_baselines
from dssm_core.evaluation.queries import EvaluationData, ListRules, Slice
from dssm_core.evaluation.rolled import Rolled, RollingRows, refresh_h
from dssm_core.features.histories import Histories
from dssm_core.features.popularity import Clicks, top
from dssm_core.metrics import Relevant
from dssm_core.retrieval.bundle import Bundle
from dssm_core.retrieval.indexes.faiss_flat import FaissFlat
from dssm_core.retrieval.item_index import EXACT_BELOW, ItemIndex, build_item_index
from dssm_core.retrieval.latest_tables import LatestTables
from dssm_core.retrieval.snapshots import Snapshot, Timeline
from dssm_core.runs.layout import ITEM_EMBEDDINGS_FILE, TEST_FILE, TRAIN_FILE, table_file
from dssm_core.runs.run import Run


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
        query, queries = _queries(snapshot, rows.users.iloc[selected], data.asked, config)
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
    """All positives of a run, train and test, with the context columns that the log has; its tables
    of users and items; and what users had taken before the log.
    """
    everyone = AskedUsers(run.step("split_by_time"))
    held = pq.read_schema(everyone.folder / TRAIN_FILE).names
    columns = [USER, ITEM, TIME, *(name for name in context if name in held)]
    parts = [everyone.positives(file, columns) for file in (TRAIN_FILE, TEST_FILE)]
    clicks = pd.concat(parts, ignore_index=True)
    tables = [run.step("validate_data") / table_file(name) for name in ("users", "items")]
    users, items = (pd.read_parquet(file) if file.is_file() else None for file in tables)
    file = run.step("ingest_data") / table_file(HISTORIES)
    histories = pd.read_parquet(file) if file.is_file() else None
    return LatestTables(clicks, users, items, histories)


def rolling_rows(run: Run, data: EvaluationData) -> RollingRows:
    """The first click of each asked user on each item of the test days, as in the daily one."""
    test = data.asked.positives(TEST_FILE, [USER, ITEM, TIME])
    test = test.drop_duplicates([USER, ITEM], ignore_index=True)
    clicked = np.append(data.train.counts() > 0, False)  # the last is row -1's
    seen_item = clicked[data.items.encode(test[ITEM]) - 1]
    seen_user = test[USER].isin(data.asked.positives(TRAIN_FILE, [USER])[USER]).to_numpy()
    elapsed_ms = test[TIME].to_numpy(np.int64) - data.cutoff_ms
    return RollingRows(
        users=test[USER],
        items=test[ITEM],
        part=elapsed_ms // (refresh_h(run.config) * HOUR_MS),
        warm=seen_item & seen_user,
        new_items=~seen_item,
    )


def _queries(
    snapshot: Snapshot, users: pd.Series[Any], asked: AskedUsers, config: Config
) -> tuple[Ints, Slice]:
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
    known = np.where(codes < snapshot.n_users, codes, 0)
    past = Histories.of(asking[asking >= 0], items[asking >= 0], len(codes))
    past = snapshot.log.prior.histories(snapshot.n_users).take(known).followed_by(past)
    none = np.zeros(0, np.int64)
    nothing = Relevant.of(none, none, len(codes), snapshot.n_items - 1)
    allowed = snapshot.catalogue.allowed(config.serving.filters, snapshot.log.end)
    rules = ListRules(snapshot.n_items - 1, allowed, config.evaluation.exclude_seen)
    queries = Slice(
        users=np.asarray(names),
        codes=known,
        relevant=nothing,
        histories=past,
        eligible=rules.eligible(past),
        asked=asked,
        latest=np.full(len(codes), -1),
        position=np.arange(len(codes)),
    )
    return query, queries


def _searches(
    snapshot: Snapshot, bundle: Bundle, queries: Slice, exported: Floats, beside: bool
) -> dict[str, Search]:
    """The refreshed index; with `beside` also exact search and the bundle as it was exported."""
    items = snapshot.embed_items(exported)
    users = _embed_users(snapshot, bundle.user_vectors, queries.codes)
    users = _with_contexts(snapshot, users, queries)
    hot = snapshot.hot_list(bundle.hot)
    searches = {"served": nearest(_build_index(bundle, items), users, hot)}
    if beside:
        exact = build_item_index(FaissFlat(), items, bundle.config.seed)
        searches["exact"] = nearest(exact, users, hot)
        codes = np.where(queries.codes < len(bundle.user_vectors), queries.codes, 0)
        daily = QueryVectors(bundle.user_vectors, codes, codes == 0)
        daily = _with_contexts(snapshot, daily, queries)
        before = nearest(bundle.index, daily, bundle.hot)
        searches["daily"] = lambda first, last, k, eligible: before(
            first, last, k, eligible.among_first(len(exported))
        )
    return searches


def _embed_users(snapshot: Snapshot, exported: Floats, codes: Ints) -> QueryVectors:
    """The vector of each query as of the snapshot: of users without a click since the training, the
    exported one. exported: [U + 1, D], codes: [Q].
    """
    vectors = np.zeros((len(codes), exported.shape[1]), dtype=np.float32)
    own = codes < len(exported)
    vectors[own] = exported[codes[own]]
    active = np.isin(codes, snapshot.active_users.numpy())
    if active.any():
        vectors[active] = snapshot.embed_users(torch.from_numpy(codes[active]))
    return QueryVectors(vectors, np.arange(len(codes)), codes == 0)


def _with_contexts(snapshot: Snapshot, users: QueryVectors, queries: Slice) -> QueryVectors:
    """The vectors of the queries; with features.first_context, those of new users by the context of
    their first event.
    """
    features = snapshot.timeline.encoder.config.features
    new = np.flatnonzero(users.cold)
    if not features.first_context or not len(new):
        return users
    context = snapshot.timeline.first_context(queries.users[new])
    vectors = np.array(users.matrix[users.rows], dtype=np.float32)
    vectors[new] = snapshot.timeline.encoder.embed_new(context)
    cold = users.cold.copy()
    cold[new] = bool(features.history.length) | (context == 0).all(1).numpy()  # as answer_sources
    return QueryVectors(vectors, np.arange(len(vectors)), cold)


def _build_index(bundle: Bundle, items: Floats) -> ItemIndex:
    """The index of items [N, D], built as a refresh builds it.

    A refresh measures again how many eligible items are too few for the index (filter_trials.py);
    here, the number that the bundle's index measured is taken.
    """
    queries = bundle.user_vectors[1:]
    index = build_item_index(bundle.index.member, items, bundle.config.seed, queries)
    measured = bundle.index.exact_below
    return replace(index, exact_below=max(measured, min(EXACT_BELOW, len(items))))


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
