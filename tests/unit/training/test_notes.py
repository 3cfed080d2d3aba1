"""What a training says of itself: which metric chose the epochs, and what it did not train on."""

import json
from contextlib import nullcontext

import pytest
import torch

from dssm_core.config import Train, parse_config
from dssm_core.features.dataset import load_prepared
from dssm_core.features.events import BEFORE_FIRST_REFRESH, FIRST_OF_USER, ONLY_ONE, UNKNOWN_ITEM
from dssm_core.runs.run import create_run
from dssm_core.runs.transaction import execute
from dssm_core.training.notes import HELD_BACK, notes, weights_of, weights_sentence
from dssm_core.training.train_towers import train_towers
from tests.conftest import small_config


def test_the_metric_follows_the_gate_unless_it_is_set():
    of_gate = parse_config(small_config(gate={"k": 10}, evaluation={"ks": [10]}))
    assert Train().metric is None
    assert of_gate.train.metric == of_gate.train.chosen_by == "recall@10"
    assert parse_config(small_config()).train.metric == "recall@200"
    own = small_config(gate={"k": 10}, evaluation={"ks": [10]}, train__metric="ndcg@5")
    assert parse_config(own).train.metric == "ndcg@5"


def test_the_last_epoch_as_the_best_is_said():
    assert notes(Train(epochs=4), 3, 10, {}) == []
    said = "the last epoch (4 of 4) was the best: more epochs may be better, raise train.max_epochs"
    assert notes(Train(epochs=4), 4, 10, {}) == [said]
    assert notes(Train(epochs=2, max_epochs=4), 4, 10, {}) == [said]
    assert notes(Train(epochs=2, max_epochs=5), 4, 10, {}) == []


@pytest.mark.parametrize(("events", "said"), [(1_804, True), (72_492, True), (72_493, False)])
def test_that_most_positives_do_not_train_is_said(events, said):
    left = {BEFORE_FIRST_REFRESH: 140_000 - events, UNKNOWN_ITEM: 4_985}
    found = notes(Train(epochs=4), 1, events, left)
    assert len(found) == said
    if said:
        assert found[0].startswith(f"{events:,} of 144,985 positives of the training set are")
        assert f"{140_000 - events:,} are before the first refresh" in found[0]
        assert found[0].endswith("a smaller features.activity.refresh_h")
        assert "4,985 are with an item that was not known at the refresh" in found[0]


ORDERED = {"features": {"activity": {"enabled": False}}, "sampler": {"kind": "uniform"}}
UNORDERED = {**ORDERED, "features": {"activity": {"enabled": False}, "history": {"length": 5}}}


@pytest.mark.parametrize(
    ("changes", "reasons"),
    [
        ({"gate": {"k": 10}, "evaluation": {"ks": [10]}}, {BEFORE_FIRST_REFRESH}),
        (ORDERED, {FIRST_OF_USER}),
        (UNORDERED | {"train__target": "rest"}, set()),
        (ORDERED | {"train__refit": False}, {FIRST_OF_USER, HELD_BACK}),
    ],
)
def test_events_and_the_rest_add_up_to_the_training_set(changes, reasons, tmp_path):
    raw = small_config(**changes, train__epochs=1)
    raw["data"]["source"] |= {"users": 300, "items": 400, "clicks": 5_000}
    raw["features"] = {**raw["features"], "columns": {}}
    run = create_run(parse_config(raw), tmp_path / "runs", "one")
    for name in ("ingest_data", "validate_data", "split_by_time", "sample_negatives"):
        execute(run, name)
    (tmp_path / "work").mkdir()
    logged = []
    live = lambda values, step: logged.append(values)  # noqa: E731
    outcome = train_towers(run, tmp_path / "work", lambda run: nullcontext(live))
    left = outcome.info["left_out"]
    positives = len(load_prepared(run.step("sample_negatives")).log.item)
    assert positives == run.need("split_by_time").rows["train"]
    assert outcome.rows["events"] + sum(left.values()) == positives
    assert reasons <= left.keys() <= reasons | {UNKNOWN_ITEM, ONLY_ONE}
    assert "raise train.max_epochs" in outcome.info["notes"][0]
    json.dumps(outcome.info)
    metric = run.config.train.chosen_by
    assert f"validation_{metric}" in outcome.info
    assert any(f"valid_{metric}" in values for values in logged)


def test_the_weights_are_summed_up():
    found = weights_of(torch.tensor([0.5, 2.0, 1000.0]))
    assert found == {"sum": 1002.5, "min": 0.5, "max": 1000.0}
    assert weights_sentence(found) == (
        "positives of the training set weigh 0.5 to 1,000, 1,002.5 in sum (data.weight)"
    )
