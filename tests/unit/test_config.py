"""A wrong config is refused as a whole, in sentences."""

import pytest
import yaml

from dssm_core.config import parse_config, read_config
from dssm_core.errors import ConfigError
from tests.conftest import REPO, small_config


@pytest.mark.parametrize("file", sorted((REPO / "configs").glob("*.yaml")), ids=lambda file: file.stem)
def test_every_shipped_config_is_valid(file):
    assert read_config(file).name


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"train__epoch": 3}, "unknown key 'train.epoch': did you mean 'epochs'?"),
        ({"gaet": {}}, "unknown key 'gaet': did you mean 'gate'?"),
        ({"tower": {"kind": "mlpp"}}, "tower: unknown kind 'mlpp': did you mean 'mlp'?"),
        ({"loss": {"kind": "magic"}}, "loss: unknown kind 'magic': choose one of bce, in_batch_softmax, sampled_softmax."),
        ({"sampler": {"kind": "actve"}}, "sampler: unknown kind 'actve': did you mean 'active'?"),
        ({"sampler": {"kind": "popularity", "alhpa": 1}}, "unknown key 'sampler.alhpa': did you mean 'alpha'?"),
        ({"sampler": {"kind": "popularity", "alpha": -1}}, "'sampler.alpha' is -1"),
        ({"train__epochs": 0}, "'train.epochs' is 0"),
        ({"name": "../x"}, "'name' is '../x'"),
        ({"data__timezone": "Mars/Base"}, "unknown time zone 'Mars/Base'"),
        ({"evaluation": {"ks": [20]}}, "evaluation.ks must hold 200"),
        ({"evaluation": {"baselines": ["hott"]}}, "unknown baseline 'hott': did you mean 'hot'?"),
        ({"features": {"activity": {"enabled": False}}}, "sampler 'active' draws by activity"),
    ],
)
def test_the_sentence_names_thing_value_and_remedy(changes, sentence):
    with pytest.raises(ConfigError) as error:
        parse_config(small_config(**changes))
    assert sentence in str(error.value)


def test_all_problems_come_at_once():
    with pytest.raises(ConfigError) as error:
        parse_config(small_config(train__epochs=0, gate__floor=2, tower={"kind": "mlpp"}, sampler={"kind": "active", "alpa": 1}))
    assert len(str(error.value).splitlines()) == 4


def test_overrides_are_yaml_and_replace_members_whole(tmp_path):
    file = tmp_path / "c.yaml"
    file.write_text(yaml.safe_dump(small_config(sampler={"kind": "active", "window_h": 6})))
    config = read_config(file, overrides=["train.epochs=7", "sampler.kind=uniform", "evaluation.ks=[5, 200]"])
    assert config.train.epochs == 7
    assert config.evaluation.ks == (5, 200)
    assert config.sampler.settings == {}, "settings of another sampler are not this one's"


@pytest.mark.parametrize("override", ["train.epochs", "=3", "name.x=1", "train.epochs=[1"])
def test_a_wrong_override_is_named(override, tmp_path):
    file = tmp_path / "c.yaml"
    file.write_text(yaml.safe_dump(small_config()))
    with pytest.raises(ConfigError, match="--set"):
        read_config(file, overrides=[override])


def test_not_yaml(tmp_path):
    file = tmp_path / "c.yaml"
    file.write_text("a: [")
    with pytest.raises(ConfigError, match="is not valid YAML"):
        read_config(file)
