"""A config.json that an earlier version wrote opens with each of its settings; what it lacks has
the default.
"""

import json
from pathlib import Path

import pytest

from dssm_core.config import Config, parse_config
from dssm_core.data.splits.days import Days
from dssm_core.data.splits.last_n import LastN
from dssm_core.runs.run import create_run
from tests.conftest import small_config

STORED = Path(__file__).parent / "stored"


def restricted(dumped, stored):
    """The settings that `stored` has, with the values of `dumped`."""
    if isinstance(stored, list):
        return [restricted(*pair) for pair in zip(dumped, stored, strict=True)]
    if not isinstance(stored, dict):
        return dumped
    return {key: restricted(dumped[key], value) for key, value in stored.items()}


@pytest.mark.parametrize(("name", "split"), [("days", Days), ("last_n", LastN)])
def test_it_opens(name, split):
    text = (STORED / f"{name}.json").read_text()
    config = Config.model_validate_json(text)
    assert isinstance(config.split, split)
    assert restricted(config.model_dump(mode="json"), json.loads(text)) == json.loads(text)


def test_a_stored_split_without_a_kind_is_days():
    stored = json.loads((STORED / "days.json").read_text())
    del stored["split"]["kind"]
    config = Config.model_validate_json(json.dumps(stored))
    assert config == Config.model_validate_json((STORED / "days.json").read_text())


def test_a_run_of_an_earlier_version_goes_on(tmp_path):
    """Its file has train.metric and lacks newer settings, which have their default then."""
    config = parse_config(small_config())
    run = create_run(config, tmp_path, "one")
    stored = json.loads((run.root / "config.json").read_text())
    assert stored["train"]["metric"] == "recall@200"
    for name in ("population", "min_queries", "confidence"):
        del stored["gate"][name]
    (run.root / "config.json").write_text(json.dumps(stored))
    assert create_run(config, tmp_path, "one").root == run.root


def test_a_dump_is_read_again():
    config = parse_config(small_config())
    assert Config.model_validate(config.model_dump()) == config
