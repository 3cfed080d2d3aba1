"""A served catalogue that is the items table, with item ids on: 80 items are listed, 50 of them are
clicked in train. Columns say who wants an item, clicked or not.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from dssm_core.columns import ITEM, USER
from dssm_core.config import parse_config
from dssm_core.evaluation.queries import read_evaluation_data
from dssm_core.features.dataset import load_prepared
from dssm_core.retrieval.bundle import assemble, open_bundle
from dssm_core.retrieval.latest_tables import LatestTables
from dssm_core.retrieval.snapshots import Timeline
from dssm_core.runs.run import create_run
from dssm_core.runs.table import STEPS
from dssm_core.runs.transaction import execute
from dssm_core.sampling.sampler_tables import load_sampler_tables
from tests.conftest import measured, small_config

DAY = 86_400_000
T0 = 1_709_251_200_000  # 2024-03-01 00:00 UTC
TOPICS = 5
LISTED = 80
CLICKED = 50
USERS = 300


def write_log(folder):
    """Item n has topic n % TOPICS, user n wants topic n % TOPICS in nine of ten clicks. Items from
    CLICKED on have no click before the test day.
    """
    rng = np.random.default_rng(0)
    rows = 8000
    user = rng.integers(0, USERS, rows)
    time = np.sort(rng.integers(T0, T0 + 4 * DAY, rows))
    topic = np.where(rng.random(rows) < 0.9, user % TOPICS, rng.integers(0, TOPICS, rows))
    ranks = np.where(time < T0 + 3 * DAY, CLICKED, LISTED) // TOPICS
    item = topic + TOPICS * rng.integers(0, ranks)
    clicks = pd.DataFrame({USER: user, ITEM: item, "timestamp": time})
    clicks.to_csv(folder / "log.csv", index=False)
    items = pd.DataFrame({ITEM: np.arange(LISTED)})
    items["topic"] = [f"t{n % TOPICS}" for n in range(LISTED)]
    items.to_csv(folder / "items.csv", index=False)


def trained(folder, catalogue, train=None, **changes):
    """A run up to its index."""
    raw = small_config(
        features={
            "columns": {"item": [{"column": "topic", "kind": "categorical"}]},
            "history": {"length": 10},
            "activity": {"enabled": False},
            "catalogue": catalogue,
        },
        sampler={"kind": "uniform"},
        split={"test_day": "2024-03-04", "train_days": 3},
    )
    tables = {"interactions": {"files": "log.csv"}, "items": {"files": "items.csv"}}
    raw["data"] = {"source": {"kind": "delimited", "path": str(folder), **tables}}
    raw["train"] |= {"epochs": 6, "batch_size": 256, "negatives": 32, "learning_rate": 0.01}
    raw["train"] |= {"id_dropout": 0.1} | (train or {})
    raw["evaluation"] |= {"ks": [10], "baselines": ["hot", "itemcf"]}
    raw["gate"] |= {"k": 10}
    run = create_run(parse_config(raw | changes), folder / "runs", catalogue)
    for name in list(STEPS)[: list(STEPS).index("build_index") + 1]:
        execute(run, name)
    return run


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A run for each catalogue, and the bundle of the one that serves the table."""
    folder = tmp_path_factory.mktemp("catalogue")
    write_log(folder)
    runs = {name: trained(folder, name) for name in ("positives", "table")}
    return runs, open_bundle(assemble(runs["table"], folder / "bundle"))


def own_topic(lists):
    """The share of items in the lists of users 0, 1, … that are of the user's topic."""
    shares = [
        np.mean([int(item) % TOPICS == user % TOPICS for item in items])
        for user, items in enumerate(lists)
    ]
    return np.mean(shares)


def lists_of(bundle):
    """All items in order for each user."""
    asked = pd.DataFrame({USER: np.arange(USERS).astype(str)})
    return bundle.retrieve(asked, LISTED)["item_ids"]


def test_all_listed_items_are_served_and_clicked_ones_have_the_first_codes(runs):
    by_name, bundle = runs
    run = by_name["table"]
    assert run.need("sample_negatives").rows["items"] == LISTED
    vectors = np.load(bundle.folder / "item_embeddings.npy")
    assert len(bundle.items) - 1 == len(vectors) == LISTED
    assert np.isfinite(vectors).all()
    prepared = load_prepared(run.step("sample_negatives"))
    assert prepared.schema.items == CLICKED + 1
    assert len(prepared.log.created) == LISTED + 1
    first = {int(item) for item in bundle.items.index[:CLICKED]}
    assert first == set(range(CLICKED))
    answer = bundle.retrieve(pd.DataFrame({USER: ["0"]}), LISTED)["item_ids"][0]
    assert {int(item) for item in answer} == set(range(LISTED))


def test_columns_say_who_wants_an_item_that_nobody_has_clicked(runs):
    """Among the unclicked items alone, chance would find one in five of the user's topic."""
    _, bundle = runs
    lists = lists_of(bundle)
    new = [[item for item in items if int(item) >= CLICKED][:6] for items in lists]
    assert own_topic(new) > 0.8


def test_clicked_items_are_found_as_where_only_they_are_served(runs):
    """Among the clicked items alone."""
    by_name, _ = runs
    shares = {}
    for name, run in by_name.items():
        lists = lists_of(open_bundle(assemble(run, run.root / "bundle")))
        shares[name] = own_topic([[i for i in items if int(i) < CLICKED][:10] for items in lists])
    assert shares["table"] == pytest.approx(shares["positives"], abs=0.05)


def test_metrics_count_all_served_items_and_baselines_list_clicked_ones(runs):
    by_name, _ = runs
    metrics = {name: measured(run) for name, run in by_name.items()}
    data = read_evaluation_data(by_name["table"])
    # An unclicked item is relevant for `all` and can be found there; `warm` has none.
    assert data.all.relevant.n_items == data.warm.relevant.n_items == LISTED
    found = {name: of["all"]["served"]["recall@10"] for name, of in metrics.items()}
    assert found["table"] == pytest.approx(found["positives"], abs=0.05)
    hot = metrics["table"]["all"]["baselines"]["hot"]
    assert hot["coverage@10"] == pytest.approx(10 / LISTED)
    assert metrics["positives"]["all"]["baselines"]["hot"]["coverage@10"] == 10 / CLICKED
    for which in ("hot", "itemcf"):
        one = metrics["table"]["baselines"][which]["recall@10"]
        assert one == pytest.approx(metrics["positives"]["baselines"][which]["recall@10"])


def test_an_item_without_a_positive_is_no_negative(runs):
    by_name, _ = runs
    folder = by_name["table"].step("sample_negatives")
    for phase in ("select", "refit"):
        assert len(load_sampler_tables(folder, phase, "sampler")["items"]) == CLICKED


def test_a_refresh_lists_items_that_come_later_behind_all_others(runs, tmp_path):
    """An unclicked item of the training keeps its code when it is clicked, and is told apart by its
    columns still.
    """
    by_name, bundle = runs
    run = by_name["table"]
    clicks = pd.read_parquet(run.step("split_by_time") / "train.parquet").query("label == 1")
    later = pd.DataFrame({USER: ["0", "1"], ITEM: ["79", "new"], "timestamp": T0 + 3 * DAY})
    items = pd.read_parquet(run.step("validate_data") / "items.parquet")
    items = pd.concat([items, pd.DataFrame({ITEM: ["new"], "topic": ["t4"]})])
    latest = LatestTables(pd.concat([clicks, later], ignore_index=True), None, items)
    snapshot = Timeline.of(bundle.folder, latest).as_of(T0 + 4 * DAY)
    assert snapshot.item_ids.index.tolist() == [*bundle.items.index, "new"]
    exported = np.load(bundle.folder / "item_embeddings.npy")
    vectors = snapshot.embed_items(exported)
    assert vectors.shape == (LISTED + 1, exported.shape[1])
    np.testing.assert_array_equal(vectors[:-1], exported)
    # The new item has the columns and the unknown id of the unclicked item 79 (topic 4).
    np.testing.assert_allclose(vectors[-1], exported[bundle.items.encode(["79"])[0] - 1], atol=1e-6)
    users = snapshot.embed_all_users(bundle.user_vectors)
    assert np.isfinite(users).all()


def test_a_history_of_an_unclicked_item_counts_as_empty(runs):
    _, bundle = runs
    asked = pd.DataFrame({"history": [["79"], [], ["79", "3"], ["3"]]})
    answer = bundle.retrieve(asked, LISTED)
    assert answer["source"].tolist() == ["hot", "hot", "history", "history"]
    lists = answer["item_ids"].tolist()
    assert lists[0] == lists[1]
    assert lists[2] == lists[3]


@pytest.mark.parametrize(
    ("loss", "sampler"),
    [("full_softmax", "uniform"), ("gbce", "uniform"), ("in_batch_softmax", "in_batch")],
)
def test_every_kind_of_loss_trains_it(tmp_path, loss, sampler):
    write_log(tmp_path)
    negatives = {} if loss == "gbce" else {"negatives": 1024}  # unused by the others
    train = {"epochs": 1, **negatives}
    run = trained(tmp_path, "table", train, loss={"kind": loss}, sampler={"kind": sampler})
    vectors = np.load(run.step("export_embeddings") / "item_embeddings.npy")
    assert len(vectors) == LISTED
    assert np.isfinite(vectors).all()
