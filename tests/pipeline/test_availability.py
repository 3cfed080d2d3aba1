"""Items that are available at some times only, from the files of a log to the lists of a bundle.

The most clicked items end before the cutoff, at it, or begin after it, so that every list that
ignores the times of the items table has one of them.
"""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import ClassVar

import numpy as np
import pandas as pd
import pytest

from dssm_core.columns import HOUR_MS, ITEM, USER
from dssm_core.config import parse_config
from dssm_core.errors import DataError
from dssm_core.evaluation import rolling
from dssm_core.evaluation.answers import answer, list_search, one_list, open_served
from dssm_core.evaluation.fitting import fit_baselines
from dssm_core.evaluation.queries import read_evaluation_data
from dssm_core.features.dataset import load_prepared
from dssm_core.operation import refresh
from dssm_core.registry.retriever import Retriever
from dssm_core.retrieval.bundle import assemble, open_bundle
from dssm_core.retrieval.indexes.faiss_flat import FaissFlat
from dssm_core.retrieval.item_index import build_item_index
from dssm_core.runs.run import Run
from tests.conftest import small_config
from tests.pipeline.test_refresh import trained

DAY = 24 * HOUR_MS
T0 = 1_709_251_200_000  # 2024-03-01 00:00 UTC
CUTOFF = T0 + 3 * DAY
K = 20
# available_from and available_until in hours from the cutoff; all other items always are available.
TIMES = {
    "ended": (None, -20),
    "ends now": (None, 0),
    "ends later": (None, 7),
    "begins now": (0, None),
    "begins later": (7, None),
    "new": (-5, 12),
    "never": (5, 5),
}


def write_clicks(folder):
    """60 items, 120 users. Half of all clicks are on items of TIMES, whether available or not."""
    rng = np.random.default_rng(3)
    n = 6000
    names = np.array([*TIMES, *(f"i{number}" for number in range(53))])
    share = np.where(np.arange(60) < len(TIMES), 0.5 / len(TIMES), 0.5 / 53)
    frame = pd.DataFrame(
        {
            USER: [f"u{user}" for user in rng.integers(0, 120, n)],
            ITEM: rng.choice(names, n, p=share),
            "timestamp": T0 + rng.integers(0, 4 * DAY, n),
        }
    )
    frame = frame[(frame[ITEM] != "new") | (frame.timestamp >= CUTOFF)]
    frame.sort_values("timestamp").to_csv(folder / "clicks.csv", index=False)


def write_items(folder, times):
    """items.csv with ISO times."""

    def iso(hours):
        return "" if hours is None else pd.Timestamp(CUTOFF + hours * HOUR_MS, unit="ms")

    items = dict.fromkeys([*times, *(f"i{number}" for number in range(53))])
    rows = [(item, *map(iso, times.get(item, (None, None)))) for item in items]
    frame = pd.DataFrame(rows, columns=[ITEM, "available_from", "available_until"])
    frame.to_csv(folder / "items.csv", index=False)


def available(item, hours, times=TIMES):
    """The oracle, in hours from the cutoff."""
    since, until = times.get(item, (None, None))
    return (since is None or since <= hours) and (until is None or hours < until)


@pytest.fixture(scope="module")
def log(tmp_path_factory):
    folder = tmp_path_factory.mktemp("log")
    write_clicks(folder)
    write_items(folder, TIMES)
    return folder


@pytest.fixture(scope="module")
def run(log, tmp_path_factory):
    tables = {"interactions": {"files": "clicks.csv"}}
    tables["items"] = {"files": "items.csv", "time_unit": "iso"}
    raw = small_config(split={"test_day": "2024-03-04", "train_days": 3})
    raw["data"] = {"source": {"kind": "delimited", "path": str(log), **tables}}
    raw["name"] = "made"
    raw["features"] = {"activity": {"refresh_h": 6}}
    raw["train"] |= {"epochs": 1, "batch_size": 64, "negatives": 32}
    baselines = ["hot", {"kind": "recent_hot", "windows_h": [1, 24]}, "itemcf"]
    raw["evaluation"] = {
        "ks": [5, K],
        "bootstrap": 20,
        "rolling": {"refresh_h": 6},
        "baselines": baselines,
    }
    raw["gate"] = {"k": K, "floor": 0.0, "min_index_ratio": 0.0, "champion_tolerance": 1.0}
    return trained(parse_config(raw), tmp_path_factory.mktemp("runs"))


@pytest.fixture(scope="module")
def base(run, tmp_path_factory):
    return assemble(run, tmp_path_factory.mktemp("base") / "bundle")


def everybody(bundle, k=100, **more):
    """The items that any user is listed. Users 1 to 3 are known, the last is new."""
    asked = pd.DataFrame({USER: ["u1", "u2", "u3", "stranger"]})
    return {item for listed in bundle.retrieve(asked, k, **more).item_ids for item in listed}


def test_training_knows_the_times(run):
    log = load_prepared(run.step("sample_negatives")).log
    names = pd.read_parquet(run.step("export_embeddings") / "item_ids.parquet")[ITEM]
    for hours in (-30, -10, 0, 9):
        mask = log.available(CUTOFF + hours * HOUR_MS).tolist()[1:]
        assert mask == [available(item, hours) for item in names]


def test_the_gate_compares_lists_of_items_that_are_available_at_the_cutoff(run):
    data = read_evaluation_data(run)
    names = data.items.index
    baselines = fit_baselines(run.config, data.train, data.cutoff_ms)
    assert not available(names[baselines["hot"].fitted.rows[0]], 0)  # the times make a difference
    with open_served(run) as opened:
        for queries in (data.warm, data.all):
            vectors = opened.encode(queries)
            searches = {
                name: opened.search(index, vectors)
                for name, index in (("served", opened.served), ("exact", opened.exact))
            }
            for name, baseline in baselines.items():
                searches[name] = list_search(baseline, queries.histories)
                for window, rows in baseline.variants.items():
                    searches[f"{name}/{window}"] = one_list(rows)
            assert len(searches) > 5
            for name, search in searches.items():
                rows = answer(search, queries, 0, len(queries.codes), K)
                assert (rows >= 0).all(), name
                listed = set(names[np.unique(rows)])
                assert all(available(item, 0) for item in listed), name


@pytest.mark.parametrize("hours", [-30, -10, 0, 6.999, 7, 12])
def test_a_bundle_lists_all_and_only_what_is_available_at_the_time(base, hours):
    bundle = open_bundle(base)
    wanted = {item for item in bundle.items.index if available(item, hours)}
    assert everybody(bundle, as_of_ms=CUTOFF + int(hours * HOUR_MS)) == wanted
    if hours == 0:
        assert everybody(bundle) == wanted


def test_the_server_takes_the_time_of_the_request(base):
    retriever = Retriever()
    retriever.load_context(SimpleNamespace(artifacts={"bundle": str(base)}))
    names = set(open_bundle(base).items.index)
    asked = pd.DataFrame({USER: ["u1", "stranger"]})
    for hours, as_of in ((-30, "2024-03-02T18:00:00Z"), (8, "2024-03-04T08:00:00Z"), (999, None)):
        params = {"k": 100} | ({"as_of": as_of} if as_of else {})
        wanted = {item for item in names if available(item, hours)}
        for listed in retriever.predict(None, asked, params).item_ids:
            assert set(listed) == wanted


def test_rolling_follows_the_times_at_each_refresh(run, base):
    rolled = rolling.roll(run, read_evaluation_data(run), open_bundle(base))
    hours = rolled.rows.part * 6
    out = np.array(
        [not available(item, at) for item, at in zip(rolled.rows.items, hours, strict=True)]
    )
    assert (rolled.rows.items == "new").any()
    assert {"ended", "ends later", "begins later", "never"} <= set(rolled.rows.items[out])
    assert "ends later" in set(rolled.rows.items[~out])
    for name, positions in rolled.positions.items():
        assert (positions[out] == K).all(), name
        assert (positions[~out] < K).any(), name


def test_rolling_asks_the_sample_which_gets_the_lists_that_it_gets_among_all(run, base):
    everyone = rolling.roll(run, read_evaluation_data(run), open_bundle(base), beside=False)
    settings = run.config.evaluation.model_copy(update={"max_users": 30})
    again = Run(run.root)
    again.__dict__["config"] = run.config.model_copy(update={"evaluation": settings})
    data = read_evaluation_data(again)
    found = rolling.roll(again, data, open_bundle(base), beside=False)
    asked = everyone.rows.users.isin(data.asked.ids.to_pylist()).to_numpy()
    assert data.asked.sample.asked == found.rows.users.nunique() == 30
    assert found.rows.users.tolist() == everyone.rows.users[asked].tolist()
    assert found.positions["served"].tolist() == everyone.positions["served"][asked].tolist()
    for name in ("warm", "new_items"):
        assert found.rows.select(name).tolist() == everyone.rows.select(name)[asked].tolist()


class Farthest(FaissFlat):
    """An index that finds the items of the smallest inner product."""

    exact: ClassVar[bool] = False

    def search(self, index, queries, k, allowed=None):
        return super().search(index, -queries, k, allowed)


@pytest.mark.parametrize("exact_below", [0, 1000])
def test_rolling_compares_all_items_where_the_index_of_the_bundle_does(
    run, base, monkeypatch, exact_below
):
    """Fewer than 1,000 items are eligible at each refresh."""
    monkeypatch.setattr(rolling, "EXACT_BELOW", 0)  # 60 items would always be compared
    bundle = open_bundle(base)
    index = build_item_index(Farthest(), bundle.index.vectors, seed=0)
    bundle = replace(bundle, index=replace(index, exact_below=exact_below))
    found = rolling.roll(run, read_evaluation_data(run), bundle).positions
    assert np.array_equal(found["served"], found["exact"]) == (exact_below == 1000)


def test_a_refresh_takes_the_times_of_the_latest_items_table(run, base, log, tmp_path):
    """An item ends early, one that had ended is back, and a new item is listed in its time."""
    changed = TIMES | {"i0": (None, 2), "ended": (None, None)}
    try:
        write_items(log, changed)
        made = refresh.refresh(base, "dssm-made", "3", run.config, CUTOFF + 3 * HOUR_MS, tmp_path)
        bundle = open_bundle(made["folder"])
        assert "new" in bundle.items.index
        for hours in (1, 3, 8, 12):
            wanted = {item for item in bundle.items.index if available(item, hours, changed)}
            assert everybody(bundle, as_of_ms=CUTOFF + hours * HOUR_MS) == wanted
    finally:
        write_items(log, TIMES)


def test_a_refresh_with_an_end_that_cannot_be_read_is_refused(run, base, log, tmp_path):
    """Else the item would be listed for ever."""
    text = (log / "items.csv").read_text()
    try:
        (log / "items.csv").write_text(text.replace("i0,,", "i0,,soon"))
        with pytest.raises(
            DataError, match="1 rows of items have text in available_until that is no time"
        ):
            refresh.refresh(base, "dssm-made", "3", run.config, CUTOFF + 4 * HOUR_MS, tmp_path)
    finally:
        (log / "items.csv").write_text(text)
    assert not (tmp_path / "dssm-made" / "current").exists()
