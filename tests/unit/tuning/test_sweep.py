"""Axes, trials and their days, by hand; a whole sweep is in tests/pipeline."""

import json
from dataclasses import replace
from datetime import date

import pytest

from dssm_core.config import parse_config
from dssm_core.errors import ConfigError, DataError
from dssm_core.runs.manifest import Manifest
from dssm_core.tuning import sweep
from dssm_core.tuning.axes import Range, read_axes
from dssm_core.tuning.trials import Trial, from_json, results, to_json, winner
from tests.conftest import small_config


def test_every_combination_in_order():
    axes = read_axes(["loss=bce,sampled_softmax", "train.epochs=2,4"])
    assert axes == {"loss": ["bce", "sampled_softmax"], "train.epochs": [2, 4]}
    assert read_axes(["train.learning_rate=1e-3,0.002"]) == {"train.learning_rate": [0.001, 0.002]}
    grid = sweep.combinations(axes)
    assert [trial.label for trial in grid] == [
        "loss=bce, train.epochs=2",
        "loss=bce, train.epochs=4",
        "loss=sampled_softmax, train.epochs=2",
        "loss=sampled_softmax, train.epochs=4",
    ]
    assert grid[0].settings == ('loss.kind="bce"', "train.epochs=2")


@pytest.mark.parametrize(
    "text", ["loss", "=bce", "loss=", "loss=[bce", "split.test_day=2024-03-06,2024-03-07"]
)
def test_a_text_that_is_no_axis_is_refused(text):
    with pytest.raises(ConfigError, match="axis"):
        read_axes([text])


def test_too_many_and_none_are_refused():
    with pytest.raises(ConfigError, match="0 trials"):
        sweep.combinations({})
    with pytest.raises(ConfigError, match=r"400 trials.* at most 200"):
        sweep.combinations({"seed": range(20), "train.epochs": range(20)})


def test_a_trial_tests_on_the_last_training_days():
    config = parse_config(small_config(split={"test_day": "2024-03-07", "train_days": 6}))
    split = sweep.on_validation_days(config).split
    assert (split.test_day, split.train_days, split.test_days) == (date(2024, 3, 6), 5, 1)
    wide = parse_config(
        small_config(split={"test_day": "2024-03-07", "train_days": 6, "validation_days": 2})
    )
    split = sweep.on_validation_days(wide).split
    assert (split.test_day, split.train_days, split.test_days) == (date(2024, 3, 5), 4, 2)
    with pytest.raises(ConfigError, match="leaves 1 days to train a trial on"):
        sweep.on_validation_days(
            parse_config(small_config(split={"test_day": "2024-03-07", "train_days": 2}))
        )


@pytest.fixture
def plan(tmp_path):
    """A function from axes to a plan on a small config."""
    (tmp_path / "small.json").write_text(parse_config(small_config()).model_dump_json())
    return lambda axes, **more: sweep.Plan(tmp_path / "small.json", None, (), axes, **more)


def test_all_invalid_trials_are_listed_at_once(plan, tmp_path):
    wanted = plan({"loss": ["bce", "bcee", "gbce"], "train.epochs": [0, 1]})
    with pytest.raises(ConfigError) as told:
        sweep.prepare(wanted, sweep.next_round(wanted, []), tmp_path / "runs")
    lines = str(told.value)
    assert "loss=bcee, train.epochs=1: " in lines
    assert "loss=bce, train.epochs=0: " in lines
    assert "loss=bce, train.epochs=1: " not in lines


def test_ranges_are_read_and_a_grid_refuses_them():
    axes = read_axes(
        ["train.learning_rate=0.0005..0.01 log", "train.epochs=2..8", "train.weight_decay=-1e-3..1"]
    )
    assert axes == {
        "train.learning_rate": Range(0.0005, 0.01, True),
        "train.epochs": Range(2, 8),
        "train.weight_decay": Range(-0.001, 1),
    }
    assert [axis.whole for axis in axes.values()] == [False, True, False]
    with pytest.raises(
        ConfigError, match=r"train\.epochs, .*a grid cannot combine all values of a range"
    ):
        sweep.combinations(axes)
    for wrong in ("train.epochs=8..2", "train.epochs=0..2 log"):
        with pytest.raises(ConfigError, match="must rise"):
            read_axes([wrong])


def reached(plan, wanted, runs, recalls):
    """Trials with the files of finished runs: a recall for each, None if it failed."""
    tried = sweep.prepare(plan, wanted, runs)
    for each, recall in zip(tried, recalls, strict=True):
        if recall is not None:
            info = {
                "passed": True,
                "reasons": [],
                "metrics": {
                    "served": {
                        "recall@200": recall,
                        "recall@200_low": recall - 0.1,
                        "recall@200_high": recall + 0.1,
                    }
                },
            }
            for name, told in (
                ("recall_gate", info),
                ("train_towers", {}),
                ("build_index", {"queries_per_s": 4000.0}),
            ):
                manifest = Manifest(
                    step=name, key="", files={}, rows={}, info=told, seconds=7.0, seed=0
                )
                (each.run.step(name)).mkdir()
                (each.run.step(name) / "manifest.json").write_text(manifest.model_dump_json())
    return tried


def test_the_best_wins_and_failed_trials_come_last(plan, tmp_path):
    grid = plan({"loss": ["bce", "bpr", "sampled_softmax"]})
    tried = reached(grid, sweep.next_round(grid, []), tmp_path / "runs", [None, 0.25, 0.75])
    assert winner(tried).label == "loss=sampled_softmax"
    found = results(tried)
    assert [(row["label"], row["recall"]) for row in found] == [
        ("loss=sampled_softmax", 0.75),
        ("loss=bpr", 0.25),
        ("loss=bce", None),
    ]
    assert (found[0]["low"], found[0]["train_seconds"], found[0]["ms_per_query"]) == (
        0.65,
        7.0,
        0.25,
    )
    assert found[0]["chosen"] == {"loss": "sampled_softmax"}
    assert sweep.next_round(grid, tried) == []
    again = [from_json(json.loads(json.dumps(to_json(each))), each.run) for each in tried]
    assert again == tried


def test_the_results_of_an_earlier_sweep_do_not_count(plan, tmp_path):
    """The trial failed this time, on another log: its earlier recall does not count."""
    grid = plan({"loss": ["bce", "bpr"]})
    before = reached(grid, sweep.next_round(grid, []), tmp_path / "runs", [0.75, 0.25])
    now = [replace(before[0], failed=True), before[1]]
    assert winner(before).label == "loss=bce"
    assert winner(now).label == "loss=bpr"
    assert [(row["label"], row["recall"]) for row in results(now)] == [
        ("loss=bpr", 0.25),
        ("loss=bce", None),
    ]
    assert [from_json(to_json(each), each.run) for each in now] == now


def test_a_search_ends_if_its_whole_first_round_fails(plan, tmp_path):
    search = plan({"train.learning_rate": Range(0.0005, 0.01)}, search="optuna", total=8)
    tried = reached(search, sweep.next_round(search, []), tmp_path / "runs", [None, None])
    assert sweep.next_round(search, tried) == []


def test_a_search_runs_in_rounds_until_its_trials_are_used(plan, tmp_path):
    search = plan(
        {"loss": ["bce", "sampled_softmax"], "train.learning_rate": Range(0.0005, 0.01, True)},
        search="optuna",
        total=6,
    )
    tried: list[Trial] = []
    for count in (2, 2, 2):
        wanted = sweep.next_round(search, tried)
        assert len(wanted) == count
        assert wanted == sweep.next_round(search, tried)  # the same results propose the same
        tried += reached(search, wanted, tmp_path / "runs", [0.5 + 0.1 * len(tried), None])
    assert sweep.next_round(search, tried) == []
    assert len({each.run.root for each in tried}) == 6
    with pytest.raises(ConfigError, match="no combination of loss works"):
        sweep.next_round(plan({"loss": ["psychic"]}, search="optuna"), [])
    with pytest.raises(ConfigError, match="0 trials on 1 axes"):
        sweep.next_round(plan({"loss": ["bce"]}, search="optuna", total=0), [])


def test_without_a_successful_trial_there_is_no_winner():
    with pytest.raises(DataError, match="all trials failed"):
        winner([])
