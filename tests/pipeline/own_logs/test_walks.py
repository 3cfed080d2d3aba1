"""From the files of a public layout to a judged model, by the config that `dssm init` writes and
the edits that its comments ask for. What is planted is said in the tests of the layouts.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from dssm_core.errors import ConfigError
from dssm_core.runs.gate_report import read_gate_report
from tests.pipeline.own_logs.conftest import judged_run, proposed
from tests.pipeline.own_logs.test_layouts import write_recbole, write_retailrocket
from tests.pipeline.own_logs.test_mind import write_behaviors, write_news
from tests.pipeline.own_logs.test_open_bandit import write_log

NOT_CONTEXT = "      - {column: position, kind: categorical}\n"  # the place of an item in its list


def walk(log, folder, edits=None):
    """The run of the proposed config up to the gate, its verdict, and the config."""
    config = proposed(log, folder, edits)
    run = judged_run(config, folder / "runs")
    return run, read_gate_report(run), config


def check(report, config):
    """The model finds more than the best list for all."""
    everyone = config.gate.population == "all"
    metrics = report.metrics.all if everyone else report.metrics
    metric = f"recall@{config.gate.k}"
    assert metrics.served.value(metric) > 1.3 * metrics.baselines["hot"].value(metric)
    assert report.passed, report.reasons


def test_mind(tmp_path):
    folder = tmp_path / "MINDsmall_train"
    folder.mkdir()
    write_news(folder)
    shown, _ = write_behaviors(folder)
    run, report, config = walk(folder, tmp_path)
    source = config.data.source.settings
    assert source["interactions"]["explode"] == {"column": "item_id", "label_after": "-"}
    assert source["interactions"]["history"] == {"column": "history"}
    assert source["items"]["files"] == "news.tsv"
    assert run.need("split_by_time").rows["read"] == len(shown) + 1
    assert run.need("sample_negatives").rows["prior_items"] > 1000
    check(report, config)


def test_open_bandit(tmp_path):
    frame = write_log(tmp_path / "all")
    run, report, config = walk(tmp_path / "all", tmp_path, {NOT_CONTEXT: ""})
    assert config.data.source.settings["interactions"]["anonymous"]
    assert config.gate.population == "all"
    assert config.gate.k == 5
    assert run.need("split_by_time").rows["read"] == len(frame)
    check(report, config)


def test_retailrocket(tmp_path):
    frame, _ = write_retailrocket(tmp_path / "log")
    weights = "weight: {column: event, values: {view: 1, addtocart: 3, transaction: 10}}"
    before = "  positive: event in"
    run, report, config = walk(tmp_path / "log", tmp_path, {before: f"  {weights}\n{before}"})
    assert config.data.weight is not None
    assert run.need("split_by_time").rows["read"] == len(frame)
    check(report, config)


def test_recbole(tmp_path):
    ratings = write_recbole(tmp_path / "log")
    run, report, config = walk(tmp_path / "log", tmp_path)
    assert config.data.positive == "rating > 3"
    train = pd.read_parquet(run.step("split_by_time") / "train.parquet")
    assert train["label"].sum() <= (ratings["rating:float"] == 5).sum()
    check(report, config)


@pytest.fixture
def untimed(tmp_path):
    """Distinct pairs of user and item, mostly of the user's own group; a tenth of the items has no
    row in the table of items, whose prices have gaps.
    """
    rng = np.random.default_rng(0)
    user, any_item = rng.integers(0, 240, 7000), rng.integers(0, 80, 7000)
    own = rng.integers(0, 20, 7000) * 4 + user % 4
    pairs = pd.DataFrame({"user": user, "item": np.where(rng.random(7000) < 0.9, own, any_item)})
    folder = tmp_path / "pairs"
    folder.mkdir()
    pairs.drop_duplicates().to_csv(folder / "pairs.csv", index=False)
    items = pd.DataFrame({"item": np.arange(72), "kind": [f"k{n % 4}" for n in range(72)]})
    items["price"] = [str(n + 0.5) if n % 24 else "n/a" for n in range(72)]
    items.to_csv(folder / "items.csv", index=False)
    return folder


def test_a_log_without_times(untimed, tmp_path):
    run, report, config = walk(untimed, tmp_path)
    assert config.split.kind == "holdout"
    assert config.data.source.settings["interactions"]["time_unit"] == "row"
    assert config.validation.allow_missing == ("items",)
    assert config.validation.allow_unreadable == ("items",)
    rows = run.need("split_by_time").rows
    assert rows["quarantined"] == 0
    assert rows["test"] > 500
    check(report, config)


def test_days_and_activity_need_times(untimed, tmp_path):
    edits = {"split: {kind: holdout}": "split: {test_day: 2024-03-03}"}
    with pytest.raises(ConfigError, match="has no times, and so no days"):
        proposed(untimed, tmp_path, edits)
    edits = {"activity: {enabled: false}": "activity: {enabled: true}"}
    with pytest.raises(ConfigError, match="has no times, which item activity is counted by"):
        proposed(untimed, tmp_path, edits)
