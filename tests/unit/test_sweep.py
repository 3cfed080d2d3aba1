"""Axes, trials and their days, by hand; a whole sweep is in tests/pipeline."""

from datetime import date

import pytest

from dssm_core import sweep
from dssm_core.config import parse_config
from dssm_core.errors import ConfigError, DataError
from tests.conftest import small_config


def test_every_combination_in_order():
    axes = sweep.read_axes(["loss=bce,sampled_softmax", "train.epochs=2,4"])
    assert axes == {"loss": ["bce", "sampled_softmax"], "train.epochs": [2, 4]}
    found = sweep.trials(axes)
    assert [trial.label for trial in found] == [
        "loss=bce, train.epochs=2",
        "loss=bce, train.epochs=4",
        "loss=sampled_softmax, train.epochs=2",
        "loss=sampled_softmax, train.epochs=4",
    ]
    assert found[0].settings == ('loss.kind="bce"', "train.epochs=2")


@pytest.mark.parametrize("text", ["loss", "=bce", "loss=", "loss=[bce"])
def test_what_is_no_axis_is_said(text):
    with pytest.raises(ConfigError, match="axis"):
        sweep.read_axes([text])


def test_too_many_and_none_are_refused():
    with pytest.raises(ConfigError, match="0 trials"):
        sweep.trials({})
    with pytest.raises(ConfigError, match=r"400 trials.* at most 200"):
        sweep.trials({"seed": range(20), "train.epochs": range(20)})


def test_a_trial_tests_on_the_last_train_days():
    config = parse_config(small_config(split={"test_day": "2024-03-07", "train_days": 6}))
    split = sweep.on_validation_days(config).split
    assert (split.test_day, split.train_days, split.test_days) == (date(2024, 3, 6), 5, 1)
    wide = parse_config(small_config(split={"test_day": "2024-03-07", "train_days": 6, "validation_days": 2}))
    split = sweep.on_validation_days(wide).split
    assert (split.test_day, split.train_days, split.test_days) == (date(2024, 3, 5), 4, 2)
    with pytest.raises(ConfigError, match="leaves 1 days to train a trial on"):
        sweep.on_validation_days(parse_config(small_config(split={"test_day": "2024-03-07", "train_days": 2})))


def test_trials_that_cannot_work_are_told_all_at_once(tmp_path):
    (tmp_path / "small.json").write_text(parse_config(small_config()).model_dump_json())
    wanted = sweep.trials({"loss": ["bce", "bcee", "gbce"], "train.epochs": [0, 1]})
    with pytest.raises(ConfigError) as told:
        sweep.prepare(tmp_path / "small.json", None, [], wanted, tmp_path / "runs")
    lines = str(told.value)
    assert "loss=bcee, train.epochs=1: " in lines
    assert "loss=bce, train.epochs=0: " in lines
    assert "loss=bce, train.epochs=1: " not in lines


def test_nobody_wins_where_all_failed():
    with pytest.raises(DataError, match="no trial came to its end"):
        sweep.winner([], [])
