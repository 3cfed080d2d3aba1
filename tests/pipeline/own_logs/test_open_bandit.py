"""The public layout of the Open Bandit Dataset by YAML alone: rows without users become a judged
model that answers new users by their context.

Planted: a session clicks items of the group that its user_feature_0 says, and hardly any other.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import numpy as np
import pandas as pd
import pytest

from dssm_core.config import read_config
from dssm_core.errors import DataError
from dssm_core.inspection.check import check
from dssm_core.retrieval.bundle import assemble, open_bundle
from dssm_core.runs.gate_report import read_gate_report
from dssm_core.runs.run import create_run
from dssm_core.runs.transaction import execute
from tests.conftest import REPO
from tests.pipeline.own_logs.conftest import judged_run

ROWS, ITEMS, GROUPS, K = 10_000, 80, 4, 5
CONFIG = REPO / "configs" / "examples" / "open-bandit.yaml"
START = datetime(2019, 11, 24, tzinfo=UTC)
SMALL = [
    "train={epochs: 8, batch_size: 128, negatives: 32, learning_rate: 0.01, device: cpu}",
    "evaluation.bootstrap=20",
    "evaluation.rolling={refresh_h: 24}",
    "gate.min_index_ratio=0",
]


def hashed(name, values):
    """Texts as long as those of the original."""
    return [f"{name}{value:x}".ljust(32, "0") for value in values]


def write_log(folder):
    """all.csv and item_context.csv. Returns the rows with their group and day."""
    folder.mkdir()
    rng = np.random.default_rng(7)
    group, item = rng.integers(GROUPS, size=ROWS), rng.integers(ITEMS, size=ROWS)
    click = rng.random(ROWS) < np.where(item % GROUPS == group, 0.8, 0.02)
    seconds = np.sort(rng.random(ROWS) * 7 * 86_400)
    frame = pd.DataFrame(
        {
            "timestamp": [str(START + timedelta(seconds=second)) for second in seconds.tolist()],
            "item_id": item,
            "position": rng.integers(1, 4, ROWS),
            "click": click.astype(int),
            "propensity_score": 1 / ITEMS,
            "user_feature_0": hashed("a", group),
            **{f"user_feature_{n}": hashed("b", rng.integers(5, size=ROWS)) for n in (1, 2, 3)},
            "user-item_affinity_0": 0.0,
        }
    )
    frame.to_csv(folder / "all.csv")
    number = np.arange(ITEMS)
    items = {f"item_feature_{n}": hashed("c", number % (3 + n)) for n in (1, 2, 3)}
    pd.DataFrame({"item_id": number, "item_feature_0": number / 7 - 3, **items}).to_csv(
        folder / "item_context.csv"
    )
    return frame.assign(group=group, day=(seconds // 86_400).astype(int))


@pytest.fixture(scope="module")
def log(tmp_path_factory):
    """The folder, and the rows with their group."""
    folder = tmp_path_factory.mktemp("random") / "all"
    return folder, write_log(folder)


@pytest.fixture(scope="module")
def run(log, tmp_path_factory):
    """The run up to the gate."""
    return judged_run(read_config(CONFIG, log[0], SMALL), tmp_path_factory.mktemp("runs"))


def test_each_row_is_a_session(log, run):
    _, frame = log
    rows = run.need("split_by_time").rows
    assert rows == {
        "read": ROWS,
        "train": int((frame["day"] < 6).sum()),
        "test": int((frame["day"] == 6).sum()),
        "outside": 0,
        "quarantined": 0,
    }
    train = pd.read_parquet(run.step("split_by_time") / "train.parquet")
    assert train["user_id"].is_unique
    at = int(pd.Timestamp(frame["timestamp"][0]).timestamp() * 1000)
    assert train["user_id"][0] == f"all.csv:1:{at}"
    # every click of train is a training event whose item was clicked on an earlier day
    clicks = frame[(frame["click"] == 1) & (frame["day"] < 6)]
    events = (clicks["day"] > clicks.groupby("item_id")["day"].transform("min")).sum()
    assert run.need("train_towers").rows["events"] == events


def test_the_model_answers_sessions_by_their_context(log, run):
    """A list of 5 of the 20 items of the session's group finds a quarter of the clicks of the own
    group; the 5 hottest of 80 find a sixteenth.
    """
    _, frame = log
    report = read_gate_report(run)
    assert report.passed, report.reasons
    answers = report.metrics.all
    assert answers.served.value("recall@5") > 0.15
    assert answers.baselines["hot"].value("recall@5") < 0.12
    clicked = int(((frame["day"] == 6) & (frame["click"] == 1)).sum())
    assert report.metrics.queries.as_json() == {"warm": 0, "all": clicked}
    assert "each query is a session" in report.reasons[0]
    rolling = report.metrics.rolling  # one refresh a day answers as the daily protocol
    assert rolling.all.served.value("recall@5") == answers.served.value("recall@5")
    page = (run.step("recall_gate") / "report.html").read_text()
    assert "a figure is a mean over sessions" in page


def test_requests_of_new_users_are_answered_as_the_sessions_were(run, tmp_path):
    bundle = open_bundle(assemble(run, tmp_path / "bundle"))
    requests = pd.DataFrame({"user_id": "nobody", "user_feature_0": hashed("a", range(GROUPS))})
    answers = bundle.retrieve(requests, K)
    assert answers["source"].tolist() == ["context"] * GROUPS
    own = [[int(item) % GROUPS for item in items] for items in answers["item_ids"]]
    assert np.mean(np.array(own) == np.arange(GROUPS)[:, None]) > 0.9
    unknown = pd.DataFrame({"user_id": ["nobody"], "user_feature_0": ["never seen"]})
    assert bundle.retrieve(unknown, K)["source"].tolist() == ["hot"]


def test_check_names_the_settings_that_sessions_need(log, tmp_path):
    folder, _ = log
    settings = {"fits": [], "warm": ["gate.population=warm"]}
    (tmp_path / "fits").mkdir()
    (tmp_path / "warm").mkdir()
    found = {
        name: check(
            read_config(CONFIG, folder, [*SMALL, *more]), tmp_path / name, lambda step: None
        )
        for name, more in settings.items()
    }
    assert found["fits"].warnings == []
    assert (found["fits"].warm, found["fits"].cold_users) == (0, 1.0)
    assert 0 < found["fits"].recalls["hot"] < 0.12
    (warning,) = found["warm"].warnings
    assert "set gate.population to all" in warning


def test_what_cannot_work_with_sessions_is_refused_with_the_setting(log, tmp_path):
    folder, _ = log
    steps = ("ingest_data", "validate_data", "split_by_time", "sample_negatives")
    first_refused = ["features.first_context=false"]
    no_events = [*first_refused, "features.activity.enabled=false", "sampler={kind: uniform}"]
    for name, more, setting in (
        ("none", first_refused, "features.first_context"),
        ("off", no_events, "features.activity.enabled"),
    ):
        made = create_run(read_config(CONFIG, folder, [*SMALL, *more]), tmp_path, name)
        for step in steps:
            execute(made, step)
        with pytest.raises(DataError, match=setting):
            execute(made, "train_towers")
