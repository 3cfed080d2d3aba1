"""Every kind of feature in a run on a log of some hundred clicks: trained, exported and served."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
import torch

from dssm_core.columns import ITEM, USER
from dssm_core.config import parse_config
from dssm_core.features.dataset import load_prepared
from dssm_core.features.tables import encode_table
from dssm_core.retrieval import bundle
from dssm_core.retrieval.encoder import Encoder
from dssm_core.retrieval.latest_tables import LatestTables
from dssm_core.retrieval.snapshots import Timeline
from dssm_core.runs.run import create_run
from dssm_core.runs.table import STEPS
from dssm_core.runs.transaction import execute
from tests.conftest import embed_rows, small_config

DAY = 86_400_000
T0 = 1_709_251_200_000  # 2024-03-01 00:00 UTC
WORDS = np.array(["rain", "sun", "vote", "goal", "storm", "match"])
COLUMNS = {
    "user": [
        {"column": "country", "kind": "categorical", "buckets": 50},
        {"column": "interests", "kind": "multi", "shares": "section", "pooling": "attention"},
        {"column": "saved", "kind": "multi", "shares": "item_id", "pooling": "sum"},
        {"column": "query", "kind": "text", "shares": "title"},
        {"column": "age", "kind": "numeric", "normaliser": "standard"},
        {"column": "country", "kind": "target_mean"},
        {"column": "user_id", "kind": "target_mean", "target": "seconds"},
    ],
    "item": [
        {"column": "section", "kind": "categorical", "dim": 6},
        {"column": "title", "kind": "text", "buckets": 500, "pooling": "mean"},
        {"column": "tags", "kind": "multi", "buckets": 40, "pooling": "max"},
        {"column": "price", "kind": "numeric", "normaliser": "rank"},
        {"column": "views", "kind": "numeric", "normaliser": "log"},
        {"column": "share", "kind": "numeric", "normaliser": "none"},
        {"column": "section", "kind": "target_mean", "smoothing": 2},
    ],
    "context": [{"column": "device", "kind": "categorical", "buckets": 7}],
}


def write_log(folder):
    rng = np.random.default_rng(0)
    users, items, clicks = 40, 30, 900
    pairs = [" ".join(WORDS[rng.integers(0, 6, 2)]) for _ in range(max(users, items))]
    section = rng.integers(0, 4, items)
    pd.DataFrame(
        {
            "user_id": np.arange(users),
            "country": rng.choice(["de", "br", "ke"], users),
            "interests": [f"s{a}|s{b}" for a, b in rng.integers(0, 5, (users, 2))],
            "saved": [f"{a}|{b}" for a, b in rng.integers(0, items, (users, 2))],
            "query": pairs[:users],
            "age": rng.integers(18, 80, users),
        }
    ).to_csv(folder / "users.csv", index=False)
    pd.DataFrame(
        {
            "item_id": np.arange(items),
            "section": [f"s{part}" for part in section],
            "title": pairs[:items],
            "tags": [f"t{part}|u{part % 2}" for part in section],
            "price": rng.lognormal(size=items).round(3),
            "views": rng.integers(0, 10_000, items),
            "share": rng.random(items).round(3),
        }
    ).to_csv(folder / "items.csv", index=False)
    pd.DataFrame(
        {
            "user_id": rng.integers(0, users, clicks),
            "item_id": rng.integers(0, items, clicks),
            "timestamp": np.sort(rng.integers(T0, T0 + 4 * DAY, clicks)),
            "label": rng.integers(0, 4, clicks) > 0,
            "seconds": rng.integers(0, 100, clicks),
            "device": rng.choice(["phone", "desk"], clicks),
        }
    ).astype({"label": int}).to_csv(folder / "log.csv", index=False)


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """A run up to its index, and its bundle."""
    folder = tmp_path_factory.mktemp("kinds")
    write_log(folder)
    tables = {
        name: {"files": f"{file}.csv"}
        for name, file in (("interactions", "log"), ("users", "users"), ("items", "items"))
    }
    raw = small_config(
        features={"columns": COLUMNS}, split={"test_day": "2024-03-04", "train_days": 3}
    )
    raw["data"] = {"source": {"kind": "delimited", "path": str(folder), **tables}}
    raw["train"] |= {"epochs": 1, "negatives": 16, "batch_size": 64}
    raw["evaluation"] |= {"ks": [20]}
    raw["gate"] |= {"k": 20}
    run = create_run(parse_config(raw), folder / "runs", "kinds")
    for name in list(STEPS)[: list(STEPS).index("build_index") + 1]:
        execute(run, name)
    return run, Encoder(bundle.assemble(run, folder / "bundle"))


def test_the_served_vector_of_a_user_equals_the_exported_one(served):
    run, encoder = served
    train = pd.read_parquet(run.step("split_by_time") / "train.parquet").query("label == 1")
    last = train.groupby(USER).agg(history=(ITEM, list), device=("device", "last")).reset_index()
    exported = np.load(encoder.folder / "user_embeddings.npy")
    assert np.isfinite(exported).all()
    np.testing.assert_allclose(
        embed_rows(encoder, last), exported[encoder.user_ids.encode(last[USER])], atol=1e-5
    )


def test_a_bundle_encodes_new_rows_as_the_rows_of_the_training(served):
    """The bundle alone encodes the items table to the tensors on which the towers were trained."""
    run, encoder = served
    rows = (
        pd.read_parquet(run.step("validate_data") / "items.parquet")
        .set_index(ITEM)
        .reindex(encoder.item_ids.index)
    )
    again = encode_table(run.config.features.columns, "item", rows, encoder.folder)
    trained = encoder.prepared.items
    assert again.categorical.equal(trained.categorical[1:])
    assert again.multi.equal(trained.multi[1:])
    assert again.numeric.equal(trained.numeric[1:])


def test_every_kind_of_column_describes_users_and_items_that_appear_later(served):
    """A new user or item with the attributes of a trained one gets the same columns. Its id and its
    target means are those of the unknown one.
    """
    run, encoder = served
    clicks = pd.read_parquet(run.step("split_by_time") / "train.parquet").query("label == 1")
    tables = []
    for side, twin in (("user", "5"), ("item", "3")):
        rows = pd.read_parquet(run.step("validate_data") / f"{side}s.parquet")
        tables.append(
            pd.concat(
                [rows, rows[rows[f"{side}_id"] == twin].assign(**{f"{side}_id": "twin"})],
                ignore_index=True,
            )
        )
    cutoff = T0 + 3 * DAY
    rows = pd.DataFrame(
        {
            USER: ["twin"] * 2,
            ITEM: ["3", "twin"],
            "timestamp": [cutoff, cutoff + 1],
            "device": ["phone"] * 2,
        }
    )
    timeline = Timeline.of(
        encoder.folder, LatestTables(pd.concat([clicks, rows], ignore_index=True), *tables)
    )
    for table, ids, twin in (
        (timeline.user_table, timeline.users, "5"),
        (timeline.item_table, timeline.items, "3"),
    ):
        code, new = ids.encode([twin, "twin"])
        for part in (table.categorical, table.multi, table.numeric):
            assert part[code].equal(part[new])
        assert table.means.as_of(torch.tensor([new]), torch.tensor([cutoff])).abs().sum() == 0
    exported = [np.load(encoder.folder / f"{side}_embeddings.npy") for side in ("item", "user")]
    snapshot = timeline.as_of(cutoff + DAY)
    items = snapshot.embed_items(exported[0])
    users = snapshot.embed_all_users(exported[1])
    assert (len(items), len(users)) == (len(exported[0]) + 1, len(exported[1]) + 1)
    assert np.isfinite(items).all()
    assert np.isfinite(users).all()
    unknown = pd.DataFrame({USER: [None], "history": [["3"]], "device": ["phone"]})
    # The columns of the new user have an effect.
    assert not np.allclose(users[-1], embed_rows(encoder, unknown)[0], atol=1e-3)
    # A request that has them describes the new user as the users table does.
    table = tables[0].set_index(USER)
    columns = [feature.column for feature in run.config.features.columns.user if feature.in_table]
    described = unknown.assign(
        **{name: [table.loc["twin", name]] for name in columns if name != USER}
    )
    np.testing.assert_allclose(embed_rows(encoder, described)[0], users[-1], atol=1e-5)


def test_shared_tables_are_saved_once_and_hashed_columns_have_no_file(served):
    run, encoder = served
    prepared = load_prepared(run.step("sample_negatives"))
    names = [
        column.column for column in (*prepared.schema.user.categorical, *prepared.schema.user.multi)
    ]
    assert names == ["country", "device", "interests", "saved", "query"]
    # Country and device; the item side has the tables of the others.
    assert len(encoder.model.user_fields.tables) == 2
    files = {
        file.name
        for file in encoder.folder.iterdir()
        if file.name.startswith(("vocabulary", "normaliser"))
    }
    numbers = {
        "normaliser.user.age.json",
        *(f"normaliser.item.{name}.json" for name in ("price", "views", "share")),
    }
    assert files == {"vocabulary.item.section.parquet", *numbers}
    assert json.loads((encoder.folder / "normaliser.item.price.json").read_text())["kind"] == "rank"
