"""A step whose shapes are fixed: it needs no value on the CPU, and padding changes nothing."""

import copy
import itertools
from contextlib import nullcontext
from dataclasses import is_dataclass

import numpy as np
import pytest
import torch
from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    DynamicOutputShapeException,
    FakeTensorMode,
)
from torch.utils._python_dispatch import TorchDispatchMode

from dssm_core.config import parse_config
from dssm_core.families import LOSSES, SAMPLERS, TOWERS
from dssm_core.features import shapes
from dssm_core.features.dataset import load_prepared
from dssm_core.features.shapes import distinct, rounded_up
from dssm_core.models.two_tower import TwoTower
from dssm_core.runs.run import create_run
from dssm_core.runs.transaction import execute
from dssm_core.training.batches import EventExamples, SequenceExamples
from dssm_core.training.fused_cross_entropy import LOGITS_AT_ONCE
from dssm_core.training.objective import Objective
from tests.conftest import small_config

BEFORE_TRAINING = ("ingest_data", "validate_data", "split_by_time", "sample_negatives")
BY_PLACE = {
    "features__activity": {"enabled": False},
    "sampler": {"kind": "uniform"},
    "evaluation__baselines": ["hot"],
}
MIXED = {
    "kind": "mixed",
    "parts": [
        {"kind": "popularity", "share": 0.2},
        {"kind": "in_batch", "share": 0.3},
        {"kind": "active", "share": 0.5},
    ],
}
FIELDS = {"features__history": {"length": 8, "pools": ["decay", "max", "attention", "last"]}}
# Each tower, loss and sampler at least once, by refresh and by place.
STEPS = {
    "mlp, active": {},
    "senet, mixed, bce": {"tower": {"kind": "senet"}, "sampler": MIXED, "loss": {"kind": "bce"}},
    "youtube, in batch": {"tower": {"kind": "youtube"}, "loss": {"kind": "in_batch_softmax"}},
    "linear, in batch, triplet": {
        "tower": {"kind": "linear"},
        "sampler": {"kind": "in_batch"},
        "train__negatives": 1024,
        "loss": {"kind": "triplet"},
    },
    "sequence, full softmax": BY_PLACE
    | {
        "tower": {"kind": "sequence"},
        "loss": {"kind": "full_softmax"},
        "sampler": {"kind": "active"},
        "train__negatives": 1024,
    },
    "recurrent, gbce, uniform": BY_PLACE
    | {"tower": {"kind": "recurrent"}, "loss": {"kind": "gbce"}},
    "mlp, in batch, bpr": BY_PLACE
    | {"sampler": {"kind": "in_batch"}, "train__negatives": 1024, "loss": {"kind": "bpr"}},
    "all pools, ccl, popularity": FIELDS
    | {"sampler": {"kind": "popularity"}, "loss": {"kind": "ccl"}},
    "ralm": BY_PLACE | {"sampler": {"kind": "ralm"}},
    "rank suppressed": {"sampler": {"kind": "rank_suppressed"}},
    "vectors in histories": {
        "features__columns": {
            "item": [{"column": "v", "kind": "vector", "file": "v.npy", "ids": "ids.npy"}]
        },
        "features__history": {"length": 8, "fields": True},
    },
    "frequency bands, triplet": {
        "sampler": {"kind": "frequency_bands"},
        "loss": {"kind": "triplet", "over": "hardest"},
    },
}


@pytest.fixture(scope="module")
def prepared_run(tmp_path_factory):
    counter, folder = itertools.count(), tmp_path_factory.mktemp("runs")
    np.save(folder / "v.npy", np.random.default_rng(0).normal(size=(400, 3)))
    np.save(folder / "ids.npy", np.array([f"a{number}" for number in range(400)]))

    def make(**changes):
        raw = small_config(**changes)
        raw["data"]["source"] |= {"users": 300, "items": 400, "clicks": 3_000}
        raw["train"] |= {"batch_size": 100}
        run = create_run(parse_config(raw), folder, f"run{next(counter)}")
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(folder)  # the file of vectors is there
            for name in BEFORE_TRAINING:
                execute(run, name)
        return run

    return make


def objective_of(run):
    samples = run.step("sample_negatives")
    prepared = load_prepared(samples)
    objective = Objective(run.config, prepared, prepared.log, samples, "refit")
    torch.manual_seed(0)
    return objective, TwoTower(run.config, prepared.schema, prepared.items).eval()


def loss_and_gradients(objective, model, rows):
    model.zero_grad()
    loss = objective(model, rows, torch.Generator().manual_seed(3))
    loss.backward()
    return loss.detach(), {
        name: part.grad for name, part in model.named_parameters() if part.grad is not None
    }


def test_each_tower_loss_and_sampler_of_fixed_shapes_is_in_a_step():
    """The contract test of the samplers traces those that need more than a log."""
    for family, section, default, others in (
        (TOWERS, "tower", "mlp", set()),
        (LOSSES, "loss", "sampled_softmax", set()),
        (SAMPLERS, "sampler", "active", {"unseen", "exposed", "hard"}),
    ):
        kinds = {step.get(section, {"kind": default})["kind"] for step in STEPS.values()}
        assert kinds | others == set(family)


@pytest.mark.parametrize("name", STEPS)
def test_padding_changes_neither_loss_nor_gradients(name, prepared_run, monkeypatch):
    run = prepared_run(**STEPS[name])
    objective, model = objective_of(run)
    rows = objective.batches(seed=1)[0]
    loss, gradients = loss_and_gradients(objective, model, rows)
    monkeypatch.setattr(shapes, "fixed", lambda device: True)
    objective, model = objective_of(run)
    padded = objective.batches(seed=1)[0]
    assert len(padded.at) > len(rows.at) or padded.events > rows.events
    same, of_padded = loss_and_gradients(objective, model, padded)
    torch.testing.assert_close(same, loss)
    assert of_padded.keys() == gradients.keys()
    for part, gradient in gradients.items():
        torch.testing.assert_close(of_padded[part], gradient, msg=part)


class NoTransfers(TorchDispatchMode):
    """No operation takes tensors of one device and returns one of another."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **kwargs or {})
        given = {part.device for part in args if isinstance(part, torch.Tensor)}
        if isinstance(out, torch.Tensor) and given:
            assert given == {out.device}, func
        return out


def on_device(value, seen):
    """A copy whose tensors are on the device `meta`, which holds no values."""
    if isinstance(value, torch.nn.Module) or id(value) in seen:
        return seen.get(id(value), value)
    if isinstance(value, torch.Tensor):
        return value.to("meta")
    if isinstance(value, dict):
        return {key: on_device(part, seen) for key, part in value.items()}
    if is_dataclass(value) or isinstance(value, Objective | EventExamples | SequenceExamples):
        seen[id(value)] = moved = copy.copy(value)
        for name, part in vars(value).items():
            object.__setattr__(moved, name, on_device(part, seen))
        return moved
    return value


@pytest.mark.parametrize("name", STEPS)
def test_a_step_needs_no_value_and_nothing_of_the_cpu(name, prepared_run, monkeypatch):
    """Fake tensors have shapes and no values, as those that torch.export traces a function with: an
    operation whose result has a size that depends on values fails, and so does `item`. On another
    device than the CPU a step neither reads a tensor of the CPU nor sends one.
    """
    monkeypatch.setattr(shapes, "fixed", lambda device: True)
    monkeypatch.setitem(LOGITS_AT_ONCE, "meta", 2_000)
    monkeypatch.setattr(torch, "autocast", lambda *given, **settings: nullcontext())
    monkeypatch.setattr(torch, "is_autocast_enabled", lambda kind: False)
    objective, model = objective_of(prepared_run(**STEPS[name], train__id_dropout=0.2))
    rows, following = objective.batches(seed=1)[:2]
    assert objective.padded
    objective(model, rows, torch.Generator())  # sorts what is sorted once
    with FakeTensorMode(allow_non_fake_inputs=True):
        objective(model.train(), following, torch.Generator()).backward()
    model.zero_grad()
    for draw in ("rand", "randint"):  # there are no generators of this device
        monkeypatch.setattr(torch, draw, without_generator(getattr(torch, draw)))
    moved = on_device(objective, {})
    history_items = model.history_items
    history_items._items = on_device(history_items._items, {})
    model.to("meta")
    following = on_device(following, {})
    with NoTransfers():
        moved(model, following, torch.Generator()).backward()


def without_generator(draw):
    return lambda *sizes, generator, device, **settings: draw(*sizes, device="meta", **settings)


def test_what_depends_on_values_is_found(prepared_run, monkeypatch):
    monkeypatch.setattr(shapes, "fixed", lambda device: True)
    objective, model = objective_of(prepared_run(sampler={"kind": "unseen"}, train__negatives=5))
    assert not objective.padded
    rows = objective.batches(seed=1)[0]
    objective(model, rows, torch.Generator())
    with (
        FakeTensorMode(allow_non_fake_inputs=True),
        pytest.raises((DataDependentOutputException, DynamicOutputShapeException)),
    ):
        objective(model, rows, torch.Generator())


def test_an_epoch_has_few_sizes():
    assert [rounded_up(count) for count in (1, 8, 9, 100, 1000, 1024, 1025)] == [
        1,
        8,
        10,
        112,
        1024,
        1024,
        1280,
    ]
    assert [rounded_up(count, 2) for count in (5, 49, 65, 97)] == [6, 64, 96, 128]
    sizes = {rounded_up(count) for count in range(1, 1025)}
    assert len(sizes) == 8 + 4 * 7
    assert all(count <= rounded_up(count) <= max(8, 1.25 * count) for count in range(1, 1025))


def test_distinct_codes_are_filled_up_with_0(monkeypatch):
    codes = torch.tensor([[7, 3], [3, 9]])
    values, place = distinct(codes, most=20)
    assert (values.tolist(), place.tolist()) == ([3, 7, 9], [[1, 0], [0, 2]])
    monkeypatch.setattr(shapes, "fixed", lambda device: True)
    values, place = distinct(codes, most=20)
    assert (values.tolist(), place.tolist()) == ([3, 7, 9, 0], [[1, 0], [0, 2]])
    assert len(distinct(codes.expand(5, 2, 2), most=10)[0]) == 10
