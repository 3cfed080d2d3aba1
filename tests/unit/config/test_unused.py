"""Settings that have no effect beside the others are refused where a user sets them."""

import pytest

from dssm_core.config import Config, parse_config
from dssm_core.config.merge import merge, nested
from dssm_core.errors import ConfigError
from tests.conftest import small_config

SEQUENCE = {"tower": {"kind": "sequence"}}
RECURRENT = {"tower": {"kind": "recurrent"}}
CCL = {"loss": {"kind": "ccl"}}
TRIPLET = {"loss": {"kind": "triplet"}}
FULL = {"loss": {"kind": "full_softmax"}}
IN_BATCH = {"loss": {"kind": "in_batch_softmax"}, "sampler": {"kind": "in_batch"}}
NO_ACTIVITY = {"features": {"activity": {"enabled": False}}, "sampler": {"kind": "uniform"}}
NO_CONTEXT = {"features": {"columns": {"context": []}}}
NO_HISTORY = {"features": {"history": {"length": 0}}}
NO_DECAY = {"features": {"history": {"pools": ["mean"]}}}
HOLDOUT = {
    "split": {"kind": "holdout"},
    "features": {"activity": {"enabled": False}},
    "sampler": {"kind": "uniform"},
    "evaluation": {"baselines": ["hot"]},
}
ROWS = [
    *((base, "features.history.pools", ["last"]) for base in (SEQUENCE, RECURRENT)),
    *((base, "features.history.decays", [0.5]) for base in (SEQUENCE, RECURRENT)),
    *((base, "features.history.learn_decays", True) for base in (SEQUENCE, RECURRENT)),
    *((base, "model.temperature", 0.2) for base in (CCL, TRIPLET)),
    *((base, "model.learn_temperature", False) for base in (CCL, TRIPLET)),
    *((base, "train.negatives", 64) for base in (FULL, IN_BATCH)),
    (NO_ACTIVITY, "features.activity.windows_h", [2]),
    (NO_ACTIVITY, "features.activity.refresh_h", 12),
    (NO_ACTIVITY, "features.activity.audience", 3),
    (NO_ACTIVITY, "features.first_context", True),
    (NO_CONTEXT, "features.first_context", True),
    (NO_HISTORY, "features.history.pools", ["last"]),
    (NO_HISTORY, "features.history.fields", True),
    (NO_DECAY, "features.history.decays", [0.5]),
    (HOLDOUT, "validation.min_rows_per_day", 5),
]


def settings(base):
    """The small config with the settings of a base; `train.negatives` at its default."""
    raw = small_config()
    raw["train"].pop("negatives")
    return merge(raw, base)


@pytest.mark.parametrize(("base", "path", "value"), ROWS)
def test_a_setting_of_no_effect_is_refused(base, path, value):
    raw = settings(base)
    parse_config(raw)
    with pytest.raises(ConfigError, match=rf"{path} has no effect .*leave it out"):
        parse_config(merge(raw, nested(path.split("."), value)))


@pytest.mark.parametrize(("base", "path", "value"), ROWS)
def test_a_stored_config_that_has_it_opens(base, path, value):
    raw = merge(settings(base), nested(path.split("."), value))
    stored = Config.model_validate(raw).model_dump_json()
    assert Config.model_validate_json(stored).model_dump_json() == stored
