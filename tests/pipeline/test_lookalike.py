"""Lookalike on a planted sample: an ad retrieves the people of its topic, also those that no train
row holds.
"""

import json

import pandas as pd
import pytest

from dssm_core.config import read_config
from dssm_core.retrieval.bundle import open_bundle
from dssm_core.runs import pipeline
from dssm_core.runs.run import create_run
from dssm_core.runs.transaction import execute
from tests.conftest import REPO
from tests.tencent import write_sample

PEOPLE, TOPICS = 3000, 6
COLUMNS = {
    "user": [
        {"column": "adCategoryId", "kind": "categorical"},
        {"column": "creativeSize", "kind": "categorical"},
    ],
    "item": [
        {"column": "age", "kind": "categorical"},
        *({"column": name, "kind": "multi", "separator": " "} for name in ("interest1", "kw1")),
    ],
}
SMALL = [
    f"features.columns={json.dumps(COLUMNS)}",
    "features.history.length=20",
    "train.device=cpu",
    "train.batch_size=128",
]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("lookalike")
    write_sample(folder, PEOPLE, topics=TOPICS)
    quick = [
        *SMALL,
        "train.negatives=256",
        "train.epochs=8",
        "train.patience=8",
        "evaluation.bootstrap=20",
    ]
    config = read_config(REPO / "configs" / "tencent-lookalike-features.yaml", folder, quick)
    run = create_run(config, folder / "runs", "one")
    return run, pipeline.run_pipeline(run)


def test_an_ad_finds_held_out_people_far_above_chance(finished):
    run, result = finished
    assert (
        run.need("sample_negatives").rows["items"] == PEOPLE
    )  # all people of userFeature.data are served
    found = result["metrics"]["all"]
    chance = 200 / PEOPLE
    assert (
        found["served"]["recall@200"] > 3 * chance
    )  # an ad's topic has a sixth of the people: 6 x chance at most
    assert found["served"]["recall@200"] > 3 * found["baselines"]["hot"]["recall@200"]
    pointwise = result["metrics"]["pointwise"]  # chance is 0.5; labels of the sample are noisy
    assert min(pointwise["auc"], pointwise["gauc"]) > 0.75


def test_seed_people_find_people_like_them(finished):
    """No ad is named: the seeds alone tell the topic, and no id was learned."""
    bundle = open_bundle(finished[0].step("register_model") / "bundle")
    train = pd.read_parquet(finished[0].step("split_by_time") / "train.parquet")
    fresh = sorted(
        set(bundle.items.index) - set(train["item_id"])
    )  # no train row holds these people
    topic = {uid: int(uid) % 10_000 % TOPICS for uid in bundle.items.index}
    seeds = [[uid for uid in fresh if topic[uid] == wanted][:10] for wanted in range(TOPICS)]
    similar = bundle.retrieve(pd.DataFrame({"history": seeds}), 50)["item_ids"]
    alike = [
        sum(topic[str(uid)] == wanted for uid in similar[wanted]) / 50 for wanted in range(TOPICS)
    ]
    assert sum(alike) / TOPICS > 2 / TOPICS  # chance: 1 / TOPICS


def test_by_ids_alone_a_sample_whose_people_come_once_runs_and_finds_nobody(tmp_path):
    """Nothing is known of a held-out person: the numbers show it, and the gate rejects the run."""
    write_sample(tmp_path, people=4000, rows=4000)
    for name in ("adFeature.csv", "userFeature.data"):
        (tmp_path / name).unlink()
    run = create_run(
        read_config(REPO / "configs" / "tencent-lookalike.yaml", tmp_path, ["train.epochs=1"]),
        tmp_path / "runs",
        "one",
    )
    for name in (
        "ingest_data",
        "validate_data",
        "split_by_time",
        "sample_negatives",
        "train_towers",
    ):
        execute(run, name)
    assert run.need("split_by_time").info["cold_item_share"] == 1.0
