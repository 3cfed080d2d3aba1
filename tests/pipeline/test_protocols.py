"""Each split without a cutoff, from the log to the evaluated index, on a small log."""

import pytest

from dssm_core.config import parse_config
from dssm_core.runs.run import create_run
from dssm_core.runs.transaction import execute
from tests.conftest import TO_INDEX, measured, small_config


@pytest.mark.parametrize(
    "split",
    [{"kind": "leave_one_out"}, {"kind": "last_n", "n": 2}, {"kind": "holdout"}],
    ids=lambda split: split["kind"],
)
def test_a_split_without_a_cutoff_trains_and_is_evaluated(split, tmp_path, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    raw = small_config(
        split=split,
        sampler={"kind": "uniform"},
        evaluation={"ks": [20], "bootstrap": 20, "baselines": ["hot"], "exclude_seen": True},
        gate={"k": 20},
    )
    raw["data"]["source"] |= {"users": 300, "items": 200, "clicks": 6000}
    raw["features"]["activity"] = {"enabled": False}
    raw["train"] |= {"epochs": 1}
    run = create_run(parse_config(raw), tmp_path, "one")
    for name in TO_INDEX:
        execute(run, name)
    rows = run.need("split_by_time").rows
    metrics = measured(run)
    assert run.root.parent.name == split["kind"]
    assert metrics["served"] == metrics["exact"]
    assert metrics["queries"]["all"] == (
        rows["test"] if split["kind"] == "last_n" else metrics["queries"]["all"]
    )
    assert 0 < metrics["served"]["recall@20"] <= 1
