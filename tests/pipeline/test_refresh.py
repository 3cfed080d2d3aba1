"""A trained bundle as of later times, on a log of a few thousand clicks with a planted new user."""

from __future__ import annotations

import json
import os
import re
import shutil
from datetime import UTC, date, datetime
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from dssm_core.columns import HOUR_MS, ITEM, USER
from dssm_core.config import Gate, Rolling, parse_config
from dssm_core.data import landing
from dssm_core.errors import ArtifactError, ConfigError, ConflictError, DataError
from dssm_core.evaluation import rolling
from dssm_core.evaluation.queries import read_evaluation_data
from dssm_core.gate.champion import measure_champion
from dssm_core.gate.judge import compare
from dssm_core.gate.rules import Champion, decide, promotion_reason
from dssm_core.operation import opened, refresh
from dssm_core.registry import versions
from dssm_core.registry.versions import FetchedVersion
from dssm_core.retrieval import reloading
from dssm_core.retrieval.bundle import assemble, content_hash, open_bundle
from dssm_core.retrieval.latest_tables import LatestTables
from dssm_core.retrieval.reloading import ReloadingBundle
from dssm_core.retrieval.snapshots import Timeline
from dssm_core.runs.files import sha256
from dssm_core.runs.gate_report import GateMetrics
from dssm_core.runs.run import Run, create_run
from dssm_core.runs.transaction import execute
from tests.conftest import TO_INDEX, evaluated, measured, small_config

DAY = 24 * HOUR_MS
T0 = 1_709_251_200_000  # 2024-03-01 00:00 UTC
CUTOFF = T0 + 3 * DAY


def write_log(folder):
    """Three days to train and one to test: 60 items live a day each and are clicked by their own
    kind of readers; `new` comes at 10:20.
    """
    rng = np.random.default_rng(5)
    rows = []
    for item in range(60):
        first = T0 + item * 4 * DAY // 60
        hours = rng.exponential(8, 80)
        times = first + (hours * HOUR_MS).astype(np.int64)
        users = rng.integers(0, 120, 80)
        device = np.where(rng.random(80) < 0.9, ["phone", "desk"][item % 2], "tv")
        rows += list(
            zip((f"u{user}" for user in users), (f"i{item}",) * 80, times, device, strict=False)
        )
    rows += [
        (f"u{n}", "new", CUTOFF + 10 * HOUR_MS + (20 + n // 2) * 60_000, "phone") for n in range(60)
    ]
    rows += [(f"u{n}", "new", CUTOFF + 11 * HOUR_MS + n * 60_000, "phone") for n in range(60, 120)]
    rows += [
        ("stranger", "i3", CUTOFF + 5 * HOUR_MS, "desk"),
        ("stranger", "i7", CUTOFF + 14 * HOUR_MS, "desk"),
    ]
    frame = pd.DataFrame(rows, columns=["user_id", "item_id", "timestamp", "device"])
    frame = frame[frame.timestamp < T0 + 4 * DAY].sort_values("timestamp", kind="stable")
    frame.to_csv(folder / "clicks.csv", index=False)
    return frame


def config_of(log, **changes):
    source = {"kind": "delimited", "path": str(log), "interactions": {"files": "*.csv"}}
    raw = small_config(data={"source": source}, split={"test_day": "2024-03-04", "train_days": 3})
    raw["name"] = "made"
    raw["features"] = {
        "columns": {"context": [{"column": "device", "kind": "categorical"}]},
        "activity": {"refresh_h": 6},
    }
    raw["train"] |= {"epochs": 2, "batch_size": 64, "negatives": 32, "learning_rate": 0.01}
    raw["evaluation"] = {"ks": [5, 20], "bootstrap": 20, "rolling": {"refresh_h": 1}}
    raw["gate"] = {"k": 20, "floor": 0.0, "min_index_ratio": 0.0, "champion_tolerance": 1.0}
    for name, value in changes.items():
        raw[name] = raw.get(name, {}) | value
    return parse_config(raw)


@pytest.fixture(scope="module")
def log(tmp_path_factory):
    folder = tmp_path_factory.mktemp("log")
    return folder, write_log(folder)


@pytest.fixture(scope="module")
def run(log, tmp_path_factory):
    return trained(config_of(log[0]), tmp_path_factory.mktemp("runs"))


def trained(config, folder):
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        run = create_run(config, folder, "one")
        for name in TO_INDEX:
            execute(run, name)
    return run


@pytest.fixture(scope="module")
def base(run, tmp_path_factory):
    return assemble(run, tmp_path_factory.mktemp("base") / "bundle")


def latest(log, until=T0 + 4 * DAY):
    frame = log[1][log[1].timestamp < until].reset_index(drop=True)
    return LatestTables(frame.astype({USER: "str", ITEM: "str"}))


def exported(base):
    return np.load(base / "item_embeddings.npy"), np.load(base / "user_embeddings.npy")


# --- what is known at a time ---------------------------------------------------------------------


def test_as_of_the_cutoff_the_vectors_are_the_exported_ones(base, log):
    items, users = exported(base)
    snapshot = Timeline.of(base, latest(log)).as_of(CUTOFF)
    assert np.array_equal(snapshot.embed_items(items), items)
    assert np.array_equal(snapshot.embed_all_users(users), users)
    everyone = snapshot.embed_users(np_codes(1, len(users)))
    assert np.array_equal(everyone, users[1:])  # also where they are computed anew


def np_codes(first, last):
    import torch

    return torch.arange(first, last)


@pytest.mark.parametrize("hour", [1, 7, 13, 24])
def test_nothing_at_or_after_the_moment_changes_anything(base, log, hour):
    items, users = exported(base)
    as_of = CUTOFF + hour * HOUR_MS
    full, cut = (
        Timeline.of(base, clicks).as_of(as_of) for clicks in (latest(log), latest(log, as_of))
    )
    assert np.array_equal(full.embed_items(items), cut.embed_items(items))
    assert np.array_equal(full.embed_all_users(users), cut.embed_all_users(users))
    assert (full.n_users, full.n_items) == (cut.n_users, cut.n_items)


def test_only_those_who_acted_have_other_vectors(base, log):
    users = exported(base)[1]
    timeline = Timeline.of(base, latest(log))
    snapshot = timeline.as_of(CUTOFF + HOUR_MS)
    acted = set(
        log[1][(log[1].timestamp >= CUTOFF) & (log[1].timestamp < CUTOFF + HOUR_MS)].user_id
    )
    assert set(timeline.users.decode(snapshot.active_users.numpy())) == acted
    same = (snapshot.embed_all_users(users)[: len(users)] == users).all(1)
    changed = {
        name
        for name, kept in zip(
            timeline.users.decode(np.arange(1, len(users))), same[1:], strict=True
        )
        if not kept
    }
    assert same[0]
    assert (
        changed <= acted
    )  # who has clicked a newcomer from the same device has the same history and context
    assert len(acted) / 2 < len(changed) < len(users) / 2


def test_newcomers_have_codes_behind_the_bundles_own_from_their_first_click_on(base, log):
    own = open_bundle(base)
    timeline = Timeline.of(base, latest(log))
    assert timeline.items.index[: len(own.items) - 1].equals(own.items.index)
    first = log[1].groupby(ITEM).timestamp.min()
    for hour in (0, 6, 10, 11, 24):
        snapshot = timeline.as_of(CUTOFF + hour * HOUR_MS)
        known = set(timeline.items.decode(np.arange(1, snapshot.n_items)))
        assert known == set(first[first < CUTOFF + hour * HOUR_MS].index)
        assert ("new" in known) == (hour >= 11)
        assert ("stranger" in set(timeline.users.decode(np.arange(1, snapshot.n_users)))) == (
            hour > 5
        )


def test_a_window_as_long_as_the_trained_one(base, log):
    snapshot = Timeline.of(base, latest(log)).as_of(CUTOFF + 5 * HOUR_MS)
    assert (snapshot.log.start, snapshot.log.end) == (T0 + 5 * HOUR_MS, CUTOFF + 5 * HOUR_MS)
    inside = log[1][
        (log[1].timestamp >= snapshot.log.start) & (log[1].timestamp < snapshot.log.end)
    ]
    assert len(snapshot.log.item) == len(inside)
    first = inside.groupby(ITEM).timestamp.min()
    names = snapshot.timeline.items.decode(np.arange(1, snapshot.n_items))
    wanted = [
        first.get(name, snapshot.log.start) for name in names
    ]  # who has left the window is as old as it is
    assert snapshot.log.created[1:].tolist() == wanted


@pytest.fixture(scope="module")
def by_place(log, tmp_path_factory):
    """A run without item activity: its towers have not learned what to make of newcomers."""
    changes = {"features": {"activity": {"enabled": False}}, "sampler": {"kind": "uniform"}}
    return trained(config_of(log[0], **changes), tmp_path_factory.mktemp("by_place"))


def test_without_item_activity_known_items_keep_their_vectors(log, by_place, tmp_path):
    folder = assemble(by_place, tmp_path / "bundle")
    items = exported(folder)[0]
    snapshot = Timeline.of(folder, latest(log)).as_of(CUTOFF + DAY)
    anew = snapshot.embed_items(items)
    assert len(anew) > len(items)
    assert anew[: len(items)].tobytes() == items.tobytes()
    assert np.isfinite(anew).all()


def test_what_newcomers_are_served_moves_with_the_clock(by_place, log, tmp_path):
    """At 13:00 most clicks of the hour before were on `new`, which the list did not know before."""
    base = assemble(by_place, tmp_path / "bundle")
    made = at(tmp_path / "refreshed", base, by_place, 13)
    before, after = (
        open_bundle(folder).retrieve(pd.DataFrame({USER: ["nobody"]}), 20).iloc[0]
        for folder in (base, made["folder"])
    )
    assert (before.source, after.source) == ("hot", "hot")
    assert "new" not in before.item_ids
    assert after.item_ids[0] == "new"
    hour = log[1][
        (log[1].timestamp >= CUTOFF + 12 * HOUR_MS) & (log[1].timestamp < CUTOFF + 13 * HOUR_MS)
    ].drop_duplicates()
    assert after.scores[0] == pytest.approx((hour.item_id == "new").mean(), abs=1e-6)


def test_newcomers_are_measured_as_they_are_served(by_place, tmp_path):
    base = assemble(by_place, tmp_path / "bundle")
    data = read_evaluation_data(by_place)
    rolled = rolling.roll(by_place, data, open_bundle(base))
    daily = measured(by_place, data)
    for which, scores in (("warm", daily["served"]), ("all", daily["all"]["served"])):
        assert rolled.scores("daily", which, by_place.config)["recall@20"] == pytest.approx(
            scores["recall@20"], abs=1e-12
        )
    first = np.flatnonzero((rolled.rows.users == "stranger") & (rolled.rows.items == "i3"))
    listed = open_bundle(base).items.decode(open_bundle(base).hot.rows[:20] + 1).tolist()
    assert rolled.positions["daily"][first].tolist() == [
        listed.index("i3") if "i3" in listed else 20
    ]


def test_where_the_table_is_the_catalogue_an_item_comes_when_it_is_created(log, tmp_path):
    """Told apart by columns alone: an item that nobody has clicked is served from its creation on,
    one to come is not.
    """
    frame, made_at = (
        log[1],
        {"early": CUTOFF + HOUR_MS, "later": CUTOFF + 9 * HOUR_MS, "ageless": None},
    )
    first = frame[frame.item_id != "new"].groupby(ITEM).timestamp.min() - 1
    own = pd.DataFrame(
        {
            ITEM: first.index,
            "created_at": first.to_numpy(),
            "kind": [f"k{int(name[1:]) % 2}" for name in first.index],
        }
    )
    frame.to_csv(tmp_path / "clicks.csv", index=False)
    own[own.created_at < CUTOFF].to_csv(tmp_path / "items.csv", index=False)
    raw = config_of(tmp_path).model_dump()
    raw["data"]["source"] |= {"items": {"files": "items.csv"}}
    raw["features"] |= {
        "item_ids": False,
        "catalogue": "table",
        "history": {"length": 5, "fields": True},
    }
    raw["features"]["columns"]["item"] = [{"column": "kind", "kind": "categorical"}]
    raw["data"]["source"]["interactions"] = {"files": "clicks.csv"}
    raw["validation"] = {"max_quarantine_share": 1}
    run = trained(parse_config(raw), tmp_path / "runs")
    base = assemble(run, tmp_path / "bundle")
    more = pd.DataFrame({ITEM: list(made_at), "created_at": list(made_at.values()), "kind": "k1"})
    pd.concat([own, more]).astype({"created_at": "Int64"}).to_csv(
        tmp_path / "items.csv", index=False
    )
    known = set(own[own.created_at < CUTOFF + 6 * HOUR_MS].item_id)
    made = at(tmp_path / "refreshed", base, run, 6)
    bundle = open_bundle(made["folder"])
    assert set(bundle.items.index) == known | {"early", "ageless"}
    assert len(np.load(bundle.folder / "item_embeddings.npy")) == len(known) + 2
    assert made["embedded"]["new_items"] == len(known) + 2 - len(open_bundle(base).items.index)


# --- the protocol --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def rolled(run, base):
    return rolling.roll(run, read_evaluation_data(run), open_bundle(base))


def test_the_rows_are_the_daily_protocols_and_so_are_the_answers_without_a_refresh(run, rolled):
    daily = measured(run)
    for which, scores in (("warm", daily["served"]), ("all", daily["all"]["served"])):
        again = rolled.scores("daily", which, run.config)
        for key in ("recall@5", "recall@20", "micro_recall@5", "micro_recall@20"):
            assert again[key] == pytest.approx(scores[key], abs=1e-12)
    assert daily["rolling"]["warm"]["served"] == rolled.scores("served", "warm", run.config)
    assert daily["rolling"]["rows"]["all"] == len(rolled.rows.part)


def test_a_newcomer_is_found_after_the_refresh_and_not_before(rolled):
    new = (rolled.rows.items == "new").to_numpy()
    early, late = (new & (rolled.rows.part == hour) for hour in (10, 12))
    assert (early.sum(), late.sum()) == (60, 60)
    assert (rolled.positions["served"][early] == 20).all()  # not in the catalogue yet
    assert (rolled.positions["daily"][new] == 20).all()
    assert (rolled.positions["served"][late] < 20).mean() > 0.5
    assert (rolled.positions["recent_hot/3h"][late] < 20).all()
    assert (rolled.positions["recent_hot/3h"][early] == 20).all()


def test_hourly_recent_hot_by_hand(rolled, log):
    """The 20 items with most clicks in the hour before each hour, then most clicks at all; any of
    those that tie there.
    """
    own = rolled.rows
    for part in (0, 9, 15):
        as_of = CUTOFF + part * HOUR_MS
        past = log[1][log[1].timestamp < as_of].drop_duplicates()
        hour, every = (
            past[past.timestamp >= as_of - HOUR_MS].item_id.value_counts(),
            past.item_id.value_counts(),
        )
        counts = pd.DataFrame({"hour": hour, "every": every}).fillna(0)
        least = counts.sort_values(["hour", "every"], ascending=False).iloc[19]
        surely = set(
            counts[
                (counts.hour > least.hour)
                | ((counts.hour == least.hour) & (counts.every > least.every))
            ].index
        )
        maybe = set(counts[(counts.hour == least.hour) & (counts.every == least.every)].index)
        at = own.part == part
        found, asked = (
            set(own.items[at & (rolled.positions["recent_hot/1h"] < 20)]),
            set(own.items[at]),
        )
        assert asked & surely <= found <= asked & (surely | maybe)


def test_recall_by_hand():
    users, items = pd.Series(["a", "a", "b", "c"]), pd.Series(["x", "y", "x", "z"])
    warm, new = np.array([1, 1, 1, 0], bool), np.array([0, 0, 0, 1], bool)
    found = rolling.Rolled(
        rolling.RollingRows(users, items, np.array([0, 2, 2, 2]), warm, new),
        {"served": np.array([0, 20, 7, 3])},
    )
    config = config_of("nowhere")
    assert found.scores("served", "warm", config)["recall@20"] == pytest.approx((1 / 2 + 1) / 2)
    assert found.recalls("served", "warm", 20).tolist() == [1 / 2, 1]
    assert found.recalls("served", "all", 20).tolist() == [1 / 2, 1, 1]
    assert found.scores("served", "warm", config)["recall@5"] == pytest.approx((1 / 2 + 0) / 2)
    assert found.scores("served", "warm", config)["micro_recall@20"] == pytest.approx(2 / 3)
    assert found.scores("served", "all", config)["micro_recall@20"] == pytest.approx(3 / 4)
    assert found.scores("served", "new_items", config)["recall@5"] == 1
    assert found.by_part("served", 20) == [1.0, None, 2 / 3]


def test_the_index_that_is_refreshed_on_disk_answers_as_measured(run, rolled, base, tmp_path):
    part = 12
    made = refresh.refresh(base, "dssm-made", "3", run.config, CUTOFF + part * HOUR_MS, tmp_path)
    rows = np.flatnonzero(rolled.rows.part == part)
    lists = (
        open_bundle(made["folder"])
        .retrieve(pd.DataFrame({USER: rolled.rows.users.iloc[rows].tolist()}), 20)
        .item_ids
    )
    places = [
        ids.index(item) if item in ids else 20
        for ids, item in zip(lists, rolled.rows.items.iloc[rows], strict=True)
    ]
    assert places == rolled.positions["served"][rows].tolist()


def test_seen_items_are_left_out_as_of_the_hour(run, base):
    config = run.config.model_copy(
        update={"evaluation": run.config.evaluation.model_copy(update={"exclude_seen": True})}
    )
    again = Run(run.root)
    again.__dict__["config"] = config
    found = rolling.roll(again, read_evaluation_data(run), open_bundle(base), beside=False)
    taken = pd.read_parquet(run.step("split_by_time") / "train.parquet")
    seen = set(zip(taken[USER], taken[ITEM], strict=True))
    again_clicked = [pair in seen for pair in zip(found.rows.users, found.rows.items, strict=True)]
    assert 0 < sum(again_clicked) < len(again_clicked)
    assert (found.positions["served"][again_clicked] == 20).all()


def test_rarer_refreshes_are_another_figure(run, base, rolled):
    config = run.config.model_copy(
        update={
            "evaluation": run.config.evaluation.model_copy(
                update={"rolling": Rolling(refresh_h=24)}
            )
        }
    )
    again = Run(run.root)
    again.__dict__["config"] = config
    daily = rolling.roll(again, read_evaluation_data(run), open_bundle(base), beside=False)
    assert np.array_equal(
        daily.positions["served"], rolled.positions["daily"]
    )  # one refresh, at the start
    assert not np.array_equal(rolled.positions["served"], rolled.positions["daily"])


def test_the_gate_judges_what_it_is_told_to():
    inner, outer = ({"recall@20": value} for value in (0.8, 0.6))
    metrics = {"served": outer, "exact": outer, "baselines": {"recent_hot": {"recall@20": 0.5}}}
    metrics["rolling"] = {
        "refresh_h": 1,
        "warm": {"served": inner, "exact": inner, "baselines": {"recent_hot": {"recall@20": 0.9}}},
    }
    assert all(check.passed for check in decide(GateMetrics.model_validate(metrics), Gate(k=20)))
    checks = decide(
        GateMetrics.model_validate(metrics), Gate(k=20, protocol="rolling"), Champion("2", 0.79)
    )
    assert [check.passed for check in checks] == [True, False, True, True]
    margin = Gate(k=20, protocol="rolling", promote_margin=0.05)
    assert (
        promotion_reason(GateMetrics.model_validate(metrics), margin) is None
    )  # the hourly baseline is above it
    metrics["champion"] = {"version": "2", "recall@20": 0.9, "rolling": {"recall@20": 0.7}}
    assert (
        promotion_reason(GateMetrics.model_validate(metrics), margin)
        == "served rolling recall@20 is 0.800, 0.100 above champion version 2; "
        "gate.promote_margin is 0.050"
    )
    metrics["champion"] = {"version": "2", "recall@20": None}
    assert (
        promotion_reason(GateMetrics.model_validate(metrics), margin) is None
    )  # it could not be measured
    assert (
        checks[1].reason
        == "served rolling recall@20 is 0.800, below the best baseline, recent_hot, with 0.900"
    )


def judged_by(run, **gate):
    """The run with other settings of the gate."""
    again = Run(run.root)
    gate = run.config.gate.model_copy(update={"protocol": "rolling"} | gate)
    again.__dict__["config"] = run.config.model_copy(update={"gate": gate})
    return again


def test_all_traffic_is_refreshed_and_compared_query_by_query(run, base, rolled, monkeypatch):
    """The champion is the bundle itself, so that no query differs."""
    again = judged_by(run, population="all", min_queries=1)
    monkeypatch.setattr(versions, "fetch_champion", lambda run, folder: FetchedVersion("7", base))
    data = read_evaluation_data(run)
    champion = measure_champion(again, data)
    everyone = rolled.scores("served", "all", run.config)["recall@20"]
    assert champion.compared.recall == champion.report.rolling_all.value("recall@20") == everyone
    found = compare(evaluated(again, data), champion, again.config)
    assert (found.against_champion.low, found.against_champion.high) == (0, 0)
    best = found.rolling.all.best_baseline("recall@20")
    assert found.against_baseline.rival == best
    assert found.against_baseline.mean == pytest.approx(
        everyone - rolled.scores(best, "all", run.config)["recall@20"]
    )
    reasons = [check.reason for check in decide(found, again.config.gate, champion.compared)]
    assert f"served rolling all-traffic recall@20 is {everyone:.3f}" in reasons[1]


def test_a_champion_is_refreshed_too_before_it_is_compared(run, base, rolled, monkeypatch):
    again = judged_by(run)
    monkeypatch.setattr(versions, "fetch_champion", lambda run, folder: FetchedVersion("7", base))
    champion = measure_champion(again, read_evaluation_data(run))
    assert (
        champion.compared.recall
        == champion.report.rolling.value("recall@20")
        == rolled.scores("served", "warm", run.config)["recall@20"]
    )
    assert champion.report.scores.value("recall@20") == pytest.approx(
        rolled.scores("daily", "warm", run.config)["recall@20"]
    )


# --- on disk -------------------------------------------------------------------------------------


def at(root, base, run, hour, **more):
    return refresh.refresh(
        base, "dssm-made", "3", run.config, CUTOFF + hour * HOUR_MS, root, **more
    )


def test_a_refresh_is_a_bundle_with_its_lineage(run, base, log, tmp_path):
    made = at(tmp_path, base, run, 11)
    seen = log[1][log[1].timestamp < CUTOFF + 11 * HOUR_MS]
    since = seen[seen.timestamp >= CUTOFF]
    assert (made["model"], made["version"], made["as_of"]) == (
        "dssm-made",
        "3",
        "2024-03-04T11:00:00Z",
    )
    assert made["bundle"] == content_hash(base)
    assert made["read_from"] == [{"files": {"clicks.csv": sha256(log[0] / "clicks.csv")}}]
    assert made["clicks"]["since_training"] == len(since.drop_duplicates())
    assert made["embedded"]["users"] == since.user_id.nunique()
    assert made["embedded"]["new_users"] == 1
    assert made["embedded"]["new_items"] == len(set(seen.item_id)) - len(
        np.load(base / "item_embeddings.npy")
    )
    bundle = open_bundle(tmp_path / "dssm-made" / "current")
    assert reloading.current_folder(tmp_path, "dssm-made") == bundle.folder.resolve()
    assert (
        json.loads((bundle.folder / "lineage.json").read_text()) | {"folder": made["folder"]}
        == made
    )
    assert "new" in bundle.retrieve(pd.DataFrame({USER: ["u70"]}), 40).item_ids[0]
    for file in ("towers.safetensors", "tables.safetensors", "schema.json", "config.json"):
        assert (bundle.folder / file).read_bytes() == (base / file).read_bytes()


def test_histories_with_newcomers_are_answered_through_the_towers(run, base, tmp_path):
    at(tmp_path, base, run, 13)
    refreshed, own = open_bundle(tmp_path / "dssm-made" / "current"), open_bundle(base)
    with_new = pd.DataFrame(
        {USER: ["stranger", None], "history": [["i3", "new"], ["new", "i50", "i3"]]}
    )
    trained_only = pd.DataFrame({USER: [None, None], "history": [["i3"], ["i50", "i3"]]})
    # `new` is not among what the towers know
    vectors = [
        bundle.vectors(asked, bundle.sources(asked))
        for bundle, asked in ((refreshed, refreshed.read(with_new)), (own, own.read(trained_only)))
    ]
    assert np.array_equal(*vectors)


def test_again_is_the_same_and_an_older_moment_is_refused(run, base, tmp_path):
    made = at(tmp_path, base, run, 11)
    before = {
        file: file.stat().st_mtime_ns
        for file in (tmp_path / "dssm-made").rglob("*")
        if file.is_file() and file.name != ".lock"
    }
    assert at(tmp_path, base, run, 11) == made
    assert {file: file.stat().st_mtime_ns for file in before} == before
    with pytest.raises(
        ConflictError,
        match="is refreshed as of 2024-03-04T11:00:00Z already, which is later than"
        " 2024-03-04T09:00:00Z",
    ):
        at(tmp_path, base, run, 9)
    assert reloading.read_lineage(tmp_path, "dssm-made") == made


def test_a_refresh_does_not_hang_on_the_one_before(run, base, tmp_path):
    at(tmp_path / "one", base, run, 9)
    at(tmp_path / "one", base, run, 15)
    at(tmp_path / "two", base, run, 15)
    one, two = (reloading.current_folder(tmp_path / name, "dssm-made") for name in ("one", "two"))
    for file in (
        "user_embeddings.npy",
        "item_embeddings.npy",
        "user_ids.parquet",
        "item_ids.parquet",
        "index.faiss",
    ):
        assert (one / file).read_bytes() == (two / file).read_bytes()


def test_the_one_before_stays_for_its_readers_and_older_ones_go(run, base, tmp_path):
    folders = [at(tmp_path, base, run, hour)["folder"] for hour in (1, 2, 3)]
    assert [os.path.isdir(folder) for folder in folders] == [False, True, True]


def test_a_kill_between_leaves_the_old_one_whole(run, base, tmp_path, monkeypatch):
    made = at(tmp_path, base, run, 1)
    whole = content_hash(reloading.current_folder(tmp_path, "dssm-made"))
    for place in ("make_index", "_swap"):
        with monkeypatch.context() as patch:
            patch.setattr(refresh, place, killed)
            with pytest.raises(KeyboardInterrupt):
                at(tmp_path, base, run, 2)
    with monkeypatch.context() as patch:  # the folder has its name, the link has not moved
        patch.setattr(
            refresh.os,
            "replace",
            lambda source, target: (
                killed() if target.name == "current" else os.rename(source, target)
            ),
        )
        with pytest.raises(KeyboardInterrupt):
            at(tmp_path, base, run, 2)
    assert reloading.read_lineage(tmp_path, "dssm-made") == made
    assert content_hash(reloading.current_folder(tmp_path, "dssm-made")) == whole
    assert at(tmp_path, base, run, 2)["as_of"] == "2024-03-04T02:00:00Z"


def killed(*_):
    raise KeyboardInterrupt


def test_landed_days_and_the_log_give_the_same(run, base, log, tmp_path):
    days = tmp_path / "days"
    for day in (1, 2, 3):
        landing.land(run.config, date(2024, 3, day), days)
    at(tmp_path / "log", base, run, 15)
    made = at(tmp_path / "landed", base, run, 15, days=days)
    assert list(made["read_from"][0]["days"]) == ["2024-03-01", "2024-03-02", "2024-03-03"]
    assert list(made["read_from"][1]["files"]) == ["clicks.csv"]  # the day that is still going on
    one, two = (
        reloading.current_folder(tmp_path / name, "dssm-made") for name in ("log", "landed")
    )
    for file in ("user_embeddings.npy", "item_embeddings.npy"):
        assert (one / file).read_bytes() == (two / file).read_bytes()


def test_what_cannot_be_refreshed_is_said(run, base, tmp_path):
    with pytest.raises(
        ConfigError, match="trained on everything before 2024-03-04T00:00:00Z; give a later time"
    ):
        at(tmp_path, base, run, -1)
    with pytest.raises(
        DataError, match=r"the log of 'made' has no click from 2024-03-08.* to 2024-03-11"
    ):
        at(tmp_path, base, run, 7 * 24)
    noon = datetime(2024, 3, 4, 12, tzinfo=UTC)
    with pytest.raises(
        ConfigError,
        match=r"2024-03-04T15:00:00\+0000 is in the future: .*with its time zone, or in UTC",
    ):
        refresh.past_ms(datetime(2024, 3, 4, 15), noon)  # three o'clock in Moscow
    assert (
        refresh.past_ms(datetime.fromisoformat("2024-03-04T15:00:00+03:00"), noon)
        == CUTOFF + 12 * HOUR_MS
    )
    other = run.config.model_copy(update={"name": "other"})
    with pytest.raises(ConfigError, match="config 'other' is not that of model 'dssm-made'"):
        refresh.refresh(base, "dssm-made", "3", other, CUTOFF + HOUR_MS, tmp_path)
    assert reloading.current_folder(tmp_path, "dssm-made") is None


def test_the_rules_of_a_training_hold_for_the_latest_clicks_too(log, tmp_path, run, base):
    dirty = tmp_path / "dirty"
    dirty.mkdir()
    frame = log[1].astype(object)
    bad = pd.DataFrame(
        [
            (None, "i3", CUTOFF + 1, "phone"),
            ("u1", None, CUTOFF + 2, "phone"),
            ("u1", "i3", "soon", "phone"),
            tuple(frame.iloc[5]),
        ],
        columns=frame.columns,
    )
    pd.concat([frame, bad]).to_csv(dirty / "clicks.csv", index=False)
    made = refresh.refresh(
        base, "dssm-made", "3", config_of(dirty), CUTOFF + 6 * HOUR_MS, tmp_path / "dirty-root"
    )
    plain = at(tmp_path / "plain", base, run, 6)
    assert made["clicks"]["read"] > made["clicks"]["clean"] == plain["clicks"]["clean"]
    for file in ("user_embeddings.npy", "item_embeddings.npy"):
        one, two = (
            reloading.current_folder(tmp_path / root, "dssm-made") / file
            for root in ("dirty-root", "plain")
        )
        assert one.read_bytes() == two.read_bytes()
    pd.concat([frame, *[bad] * 100]).to_csv(dirty / "clicks.csv", index=False)
    with pytest.raises(
        DataError, match=r"break a rule, more than validation\.max_quarantine_share 1\.00%"
    ):
        refresh.refresh(
            base, "dssm-made", "3", config_of(dirty), CUTOFF + 7 * HOUR_MS, tmp_path / "dirty-root"
        )


def test_clicks_that_come_twice_break_no_rule(log, tmp_path, run, base):
    """As `split_by_time` has it: they are left out, and counted, and refuse nothing."""
    folder = tmp_path / "twice"
    folder.mkdir()
    pd.concat([log[1], log[1].iloc[:200]]).to_csv(folder / "clicks.csv", index=False)
    made = refresh.refresh(
        base, "dssm-made", "3", config_of(folder), CUTOFF + 6 * HOUR_MS, tmp_path / "root"
    )
    plain = at(tmp_path / "plain", base, run, 6)
    assert made["clicks"]["read"] == made["clicks"]["sound"] > 1.01 * made["clicks"]["clean"]
    assert made["clicks"]["clean"] == plain["clicks"]["clean"]


def test_days_of_another_zone_are_not_taken_for_days(run, base, log, tmp_path):
    """A day that began nine hours earlier lacks the evening's clicks."""
    days = tmp_path / "days"
    tokyo = run.config.model_copy(
        update={"data": run.config.data.model_copy(update={"timezone": "Asia/Tokyo"})}
    )
    for day, config in ((1, run.config), (2, tokyo), (3, run.config)):
        landing.land(config, date(2024, 3, day), days)
    made = at(tmp_path / "landed", base, run, 15, days=days)
    assert list(made["read_from"][0]["days"]) == ["2024-03-01", "2024-03-03"]
    assert made["clicks"] == at(tmp_path / "log", base, run, 15)["clicks"]


def test_a_champion_that_was_replaced_meanwhile_is_not_swapped_in(run, base, tmp_path, monkeypatch):
    """The refresh began with version 3; 4 was promoted and refreshed before it ended."""
    champions = iter(["3", "4"])
    store = SimpleNamespace(
        name="dssm-made",
        uri="",
        aliases=lambda: {"champion": next(champions)},
        tags=lambda version: {},
    )
    monkeypatch.setattr(
        refresh, "fetch", lambda store, version, folder: SimpleNamespace(folder=base)
    )
    with pytest.raises(
        ConflictError,
        match="champion of 'dssm-made' became 4 while version 3 was refreshed",
    ):
        refresh.refresh_registered(store, None, run.config, CUTOFF + HOUR_MS, tmp_path)
    assert reloading.current_folder(tmp_path, "dssm-made") is None
    assert not (tmp_path / "dssm-made" / ".part").exists()


# --- who is served by it -------------------------------------------------------------------------


def test_a_server_follows_the_refreshes_of_its_own_bundle_only(run, base, log, tmp_path):
    server, asked = ReloadingBundle(base, tmp_path), pd.DataFrame({USER: ["u70"]})
    assert server.current() is server.registered
    first = at(tmp_path, base, run, 9)
    opened = server.current()
    assert str(opened.folder) == first["folder"]
    assert server.current() is opened
    assert "new" not in opened.retrieve(asked, 60).item_ids[0]
    second = at(tmp_path, base, run, 12)
    assert str(server.current().folder) == second["folder"]
    assert "new" in server.current().retrieve(asked, 60).item_ids[0]
    # What users have seen is that of the refresh as well: all clicks before its time.
    clicks = log[1][log[1][USER] == "u70"]
    seen = set(clicks[clicks.timestamp < CUTOFF + 12 * HOUR_MS][ITEM])
    unseen = server.current().retrieve(asked, 60, exclude_seen=True).item_ids[0]
    assert seen
    assert not seen & set(unseen)
    other = tmp_path / "other"
    shutil.copytree(base, other)
    (other / "note.txt").write_text("another version")
    assert ReloadingBundle(other, tmp_path).current().folder == other
    assert ReloadingBundle(base).current().folder == base


def half(file):
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def flip_last_byte(file):
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)


DAMAGES = {
    "lineage.json": lambda file: file.write_text("[]"),
    "user_ids.parquet": half,
    "index.faiss": half,
    "towers.safetensors": half,
    "item_embeddings.npy": lambda file: file.write_bytes(b""),
    "user_embeddings.npy": flip_last_byte,
    "config.json": Path.unlink,
}


@pytest.mark.parametrize("hashed", [True, False])
@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_refresh_takes_nobody_down_and_the_next_one_heals_it(
    run, base, tmp_path, damage, hashed
):
    """As after a power cut: what was served before goes on, a server that starts then begins with
    its own. A refresh of older code has no hash: it is opened whole, so that only changed values
    go unnoticed.
    """
    server = ReloadingBundle(base, tmp_path)
    at(tmp_path, base, run, 9)
    before = server.current()
    broken = Path(at(tmp_path, base, run, 10)["folder"])
    if not hashed:
        lineage = json.loads((broken / "lineage.json").read_text())
        del lineage["content_hash"]
        (broken / "lineage.json").write_text(json.dumps(lineage))
    DAMAGES[damage](broken / damage)
    is_noticed = hashed or damage != "user_embeddings.npy"
    assert (server.current() is before) is is_noticed
    starting = ReloadingBundle(base, tmp_path)
    assert (starting.current() is starting.registered) is is_noticed
    healed = at(tmp_path, base, run, 11)
    assert str(server.current().folder) == str(starting.current().folder) == healed["folder"]


@pytest.mark.parametrize("damage", ["towers.safetensors", "lineage.json"])
def test_a_damaged_refresh_is_written_again_by_the_same_refresh(run, base, tmp_path, damage):
    made = Path(at(tmp_path, base, run, 10)["folder"])
    whole = reloading.refreshed_hash(made)
    DAMAGES[damage](made / damage)
    server = ReloadingBundle(base, tmp_path)
    assert server.current() is server.registered
    assert at(tmp_path, base, run, 10)["folder"] == str(made)
    assert reloading.refreshed_hash(made) == whole
    assert server.current().folder == made  # the link was made again, to the same folder


def test_a_damaged_refresh_is_opened_once_and_not_at_each_request(
    run, base, tmp_path, monkeypatch, caplog
):
    half(Path(at(tmp_path, base, run, 10)["folder"]) / "towers.safetensors")
    server = ReloadingBundle(base, tmp_path)
    for _ in range(3):
        assert server.current() is server.registered
    (warning,) = [record.getMessage() for record in caplog.records if "not served" in record.msg]
    assert re.search(r"the hash of its files is \w{64}, but \w{64} was written", warning)


def test_a_link_to_nothing_changes_nothing_and_a_removed_link_goes_back(run, base, tmp_path):
    made = Path(at(tmp_path, base, run, 10)["folder"])
    server = ReloadingBundle(base, tmp_path)
    refreshed = server.current()
    shutil.rmtree(made)
    link = tmp_path / "dssm-made" / "current"
    link.unlink()
    link.symlink_to("3/gone")
    assert server.current() is refreshed
    link.unlink()
    link.symlink_to("current")  # a loop
    assert server.current() is refreshed
    link.unlink()
    assert server.current() is server.registered


def test_while_one_thread_opens_a_refresh_the_others_answer_from_the_one_before(
    run, base, tmp_path, monkeypatch
):
    server = ReloadingBundle(base, tmp_path)
    made = at(tmp_path, base, run, 10)
    meanwhile = []
    monkeypatch.setattr(
        reloading,
        "open_bundle",
        lambda folder: meanwhile.append(server.current()) or open_bundle(folder),
    )
    assert str(server.current().folder) == made["folder"]
    assert meanwhile == [server.registered]


def test_what_a_refresh_wrote_wrong_is_not_linked(run, base, tmp_path, monkeypatch):
    before = at(tmp_path, base, run, 9)
    monkeypatch.setattr(
        refresh,
        "refreshed_hash",
        lambda folder: half(folder / "towers.safetensors"),  # damaged after it was written
    )
    with pytest.raises(ArtifactError, match=r"bundle .* cannot answer: SafetensorError: "):
        at(tmp_path, base, run, 10)
    assert reloading.read_lineage(tmp_path, "dssm-made") == before


def test_the_logged_model_follows_where_it_is_told_of_them(run, base, tmp_path, monkeypatch):
    from dssm_core.registry.retriever import Retriever

    at(tmp_path, base, run, 12)
    context, asked = SimpleNamespace(artifacts={"bundle": str(base)}), pd.DataFrame({USER: ["u70"]})
    found = []
    for root in (None, str(tmp_path)):
        monkeypatch.setenv("DSSM_REFRESHED", root) if root else monkeypatch.delenv(
            "DSSM_REFRESHED", raising=False
        )
        model = Retriever()
        model.load_context(context)
        found.append("new" in model.predict(context, asked, {"k": 60}).item_ids[0])
    assert found == [False, True]


def test_lists_are_those_of_the_latest_refresh_of_their_version(run, base, tmp_path, monkeypatch):
    store = SimpleNamespace(
        name="dssm-made", uri="here", aliases=lambda: {"champion": "3"}, tags=lambda version: {}
    )
    folder = base
    monkeypatch.setattr(opened, "fetch", lambda _, version, to: FetchedVersion(version, folder))
    made = at(tmp_path, base, run, 12)
    with opened.opened(store, None, tmp_path) as (bundle, about):
        assert str(bundle.folder) == made["folder"]
        assert about["refreshed_as_of"] == "2024-03-04T12:00:00Z"
        assert "new" in bundle.retrieve(pd.DataFrame({USER: ["u70"]}), 60).item_ids[0]
    with opened.opened(store) as (bundle, about):
        assert (bundle.folder, about) == (base, {"model": "dssm-made", "version": "3"})
    folder = shutil.copytree(base, tmp_path / "other")  # another version: it has no refresh yet
    (folder / "config.json").write_text((folder / "config.json").read_text() + " ")
    with opened.opened(store, None, tmp_path) as (bundle, about):
        assert (bundle.folder, about) == (folder, {"model": "dssm-made", "version": "3"})
