"""configs/examples/ecommerce.yaml by itself, on a log of the shape that it says."""

import pytest

from benchmarks.weights import CONFIG, judged, write_log
from dssm_core.config import read_config


@pytest.fixture(scope="module")
def log(tmp_path_factory):
    """Users click on bargains most of the time, and buy in the category of their segment."""
    folder = tmp_path_factory.mktemp("shop")
    write_log(folder, users=600, seed=0)
    return folder


def test_with_weights_purchased_items_rank_first_and_without_they_do_not(log):
    """Each user buys among 20 items of 200, and 20 others have most of the clicks."""
    weighted = judged(log, log / "runs", "weighted")
    plain = judged(log, log / "runs", "plain", "data.weight=null")
    assert weighted.passed, weighted.reasons
    assert weighted.metrics.served.root["recall@20"] > 0.8
    assert plain.metrics.served.root["recall@20"] < 0.2
    assert plain.metrics.baselines["hot"].root["recall@20"] == 0


def test_the_example_is_read_without_changes():
    config = read_config(CONFIG)
    assert config.data.weight.values == {"click": 1, "cart": 5, "purchase": 20}
    assert config.split.relevant == "event == 'purchase'"
