"""One rule lays settings over others: for `extends`, for `--set` and for --data."""

import pytest
import yaml

from dssm_core.config import read_config
from dssm_core.config.merge import merge, nested
from tests.conftest import small_config

BASE = {"split": {"test_day": "2024-03-07", "train_days": 5}}
TOWER = {"tower": {"kind": "mlp", "hidden": [64]}}


@pytest.mark.parametrize(
    ("base", "top", "merged"),
    [
        (BASE, {"split": {"kind": "days"}}, {"split": {**BASE["split"], "kind": "days"}}),
        (BASE, {"split": {"kind": "fixed"}}, {"split": {"kind": "fixed"}}),
        (
            BASE,
            {"split": {"train_days": 3}},
            {"split": {"test_day": "2024-03-07", "train_days": 3}},
        ),
        (
            {"split": {"kind": "last_n", "n": 3}},
            {"split": {"relevant": "rating > 2"}},
            {"split": {"kind": "last_n", "n": 3, "relevant": "rating > 2"}},
        ),
        (
            TOWER,
            {"tower": {"kind": "mlp", "dropout": 0.1}},
            {"tower": {"kind": "mlp", "hidden": [64], "dropout": 0.1}},
        ),
        (TOWER, {"tower": {"kind": "senet"}}, {"tower": {"kind": "senet"}}),
        (TOWER, {"tower": {"hidden": [8, 8]}}, {"tower": {"kind": "mlp", "hidden": [8, 8]}}),
        (
            {"sampler": {"kind": "unseen", "of": {"kind": "popularity", "alpha": 0.5}}},
            {"sampler": {"of": {"kind": "uniform"}}},
            {"sampler": {"kind": "unseen", "of": {"kind": "uniform"}}},
        ),
        (
            {"evaluation": {"baselines": [{"kind": "hot"}, {"kind": "als"}], "ks": [200]}},
            {"evaluation": {"baselines": [{"kind": "hot", "name": "other"}]}},
            {"evaluation": {"baselines": [{"kind": "hot", "name": "other"}], "ks": [200]}},
        ),
        (
            {"evaluation": {"rolling": None}},
            nested(["evaluation", "rolling", "refresh_h"], 2),
            {"evaluation": {"rolling": {"refresh_h": 2}}},
        ),
        (
            {"other": {"split": {"n": 1}}},
            {"other": {"split": {"kind": "days"}}},
            {"other": {"split": {"kind": "days"}}},
        ),
    ],
)
def test_settings_over_others(base, top, merged):
    assert merge(base, top) == merged


def test_merging_changes_neither():
    base = {"train": {"epochs": 1}}
    top = {"train": {"negatives": 2}}
    assert merge(base, top) == {"train": {"epochs": 1, "negatives": 2}}
    assert (base, top) == ({"train": {"epochs": 1}}, {"train": {"negatives": 2}})


def written(folder, **changes):
    file = folder / "base.yaml"
    file.write_text(yaml.safe_dump(small_config(**changes)))
    return file


@pytest.mark.parametrize("way", ["set", "extends"])
@pytest.mark.parametrize(
    ("changes", "section", "settings"),
    [
        ({"split": BASE["split"]}, {"split": {"kind": "days"}}, {"train_days": 5}),
        ({"split": BASE["split"]}, {"split": {"train_days": 4}}, {"train_days": 4}),
        (TOWER, {"tower": {"kind": "mlp"}}, {"kind": "mlp", "hidden": [64]}),
        (TOWER, {"tower": {"kind": "senet"}}, {"kind": "senet"}),
    ],
)
def test_set_and_extends_agree(tmp_path, way, changes, section, settings):
    base = written(tmp_path, **changes)
    if way == "extends":
        top = tmp_path / "top.yaml"
        top.write_text(yaml.safe_dump({"extends": "base.yaml", **section}))
        config = read_config(top)
    else:
        (name, values), *_ = section.items()
        config = read_config(
            base, overrides=[f"{name}.{key}={value}" for key, value in values.items()]
        )
    (name, _), *_ = section.items()
    dumped = config.model_dump(mode="json")[name]
    if name == "tower":
        assert dumped == settings
    else:
        assert dumped == {**dumped, **settings, "kind": "days", "test_day": "2024-03-07"}


def test_a_section_that_is_null_can_be_set(tmp_path):
    config = read_config(
        written(tmp_path, evaluation__rolling=None), overrides=["evaluation.rolling.refresh_h=2"]
    )
    assert config.evaluation.rolling is not None
    assert config.evaluation.rolling.refresh_h == 2
