"""Other public layouts by YAML alone: RetailRocket's events and RecBole's atomic files.

Planted: a user takes items of one of four groups, and seldom others.
"""

from __future__ import annotations

from datetime import UTC, datetime

import numpy as np
import pandas as pd

from dssm_core.config import read_config
from dssm_core.runs.gate_report import read_gate_report
from tests.conftest import REPO
from tests.pipeline.own_logs.conftest import judged_run

EXAMPLES = REPO / "configs" / "examples"
USERS, ITEMS, EVENTS, K = 200, 80, 8000, 10
SMALL = [
    "train={epochs: 8, batch_size: 256, learning_rate: 0.01, device: cpu}",
    f"evaluation.ks=[{K}]",
    "evaluation.bootstrap=20",
    "evaluation.baselines=[hot]",
    f"gate={{k: {K}, floor: 0.2, min_index_ratio: 0.0, min_queries: 50}}",
]


def events(seconds):
    """User, item and second of planted events, in time order."""
    rng = np.random.default_rng(3)
    user = rng.integers(USERS, size=EVENTS)
    own = rng.integers(ITEMS // 4, size=EVENTS) * 4 + user % 4
    item = np.where(rng.random(EVENTS) < 0.9, own, rng.integers(ITEMS, size=EVENTS))
    return user, item, np.sort(rng.integers(0, seconds, EVENTS))


def check(run):
    """A list of 10 of the 20 items of a user's group finds more than the 10 hottest of 80."""
    report = read_gate_report(run)
    served = report.metrics.served.value(f"recall@{K}")
    assert served > 0.3 > report.metrics.baselines["hot"].value(f"recall@{K}")
    assert report.passed, report.reasons


def write_retailrocket(folder):
    """events.csv of ten days, with its rows and their seconds; and the two files of categories,
    which are no log.
    """
    user, item, second = events(10 * 86_400)
    start = int(datetime(2015, 9, 8, tzinfo=UTC).timestamp())
    kinds = np.array(["view", "view", "addtocart", "transaction"])[np.arange(EVENTS) % 4]
    frame = pd.DataFrame(
        {
            "timestamp": (start + second) * 1000,
            "visitorid": user,
            "event": kinds,
            "itemid": item,
            "transactionid": np.where(kinds == "transaction", np.arange(EVENTS), None),
        }
    )
    folder.mkdir()
    frame.to_csv(folder / "events.csv", index=False)
    properties = pd.DataFrame({"timestamp": start * 1000, "itemid": np.arange(ITEMS).repeat(200)})
    properties["property"] = np.arange(len(properties)) % 200
    properties["value"] = "n1.000 1025 n2.000"
    properties.to_csv(folder / "item_properties_part1.csv", index=False)
    pd.DataFrame({"categoryid": range(9), "parentid": 0}).to_csv(
        folder / "category_tree.csv", index=False
    )
    return frame, second


def test_retailrocket(tmp_path):
    frame, second = write_retailrocket(tmp_path / "log")
    small = [*SMALL, "split.train_days=9", "validation.min_rows_per_day=100"]
    run = judged_run(read_config(EXAMPLES / "retailrocket.yaml", tmp_path / "log", small), tmp_path)
    train = pd.read_parquet(run.step("split_by_time") / "train.parquet")
    kept = frame[second < 9 * 86_400].drop_duplicates(["visitorid", "itemid", "timestamp"])
    assert train["label"].sum() == len(train) == len(kept)
    assert train["event"].value_counts().to_dict() == kept["event"].value_counts().to_dict()
    check(run)


def write_recbole(folder):
    """The atomic files of users, items and ratings. Returns the ratings."""
    user, item, second = events(200 * 86_400)
    folder.mkdir()
    ratings = pd.DataFrame(
        {
            "user_id:token": user,
            "item_id:token": item,
            "rating:float": np.where(np.arange(EVENTS) % 5, 5, 2),
            "timestamp:float": 880_000_000 + second,
        }
    )
    ratings.to_csv(folder / "ml-100k.inter", sep="\t", index=False)
    pd.DataFrame(
        {
            "user_id:token": range(USERS),
            "age:token": np.arange(USERS) % 50 + 10,
            "gender:token": "F",
            "occupation:token": "writer",
            "zip_code:token": "85711",
        }
    ).to_csv(folder / "ml-100k.user", sep="\t", index=False)
    pd.DataFrame(
        {
            "item_id:token": range(ITEMS),
            "movie_title:token_seq": [f'The "{n}"' for n in range(ITEMS)],
            "release_year:token": "1995",
            "class:token_seq": [f"Group{n % 4} Film" for n in range(ITEMS)],
        }
    ).to_csv(folder / "ml-100k.item", sep="\t", index=False, quoting=3)
    return ratings


def test_recbole(tmp_path):
    folder = tmp_path / "log"
    ratings = write_recbole(folder)
    run = judged_run(read_config(EXAMPLES / "recbole.yaml", folder, SMALL), tmp_path)
    rows = run.need("split_by_time").rows
    repeats = ratings.duplicated(["user_id:token", "item_id:token", "timestamp:float"]).sum()
    assert (rows["read"], rows["quarantined"]) == (EVENTS, repeats)
    assert rows["test"] == USERS
    check(run)
