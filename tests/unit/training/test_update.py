"""Updates that are replayed are the updates that are computed one by one."""

import copy
import logging
from dataclasses import replace

import pytest
import torch

from dssm_core.features import shapes
from dssm_core.features.dataset import load_prepared
from dssm_core.models.two_tower import TwoTower
from dssm_core.training.objective import Objective
from dssm_core.training.optimizers import make_optimizers
from dssm_core.training.trainer import Trainer
from dssm_core.training.update import Graphs
from tests.unit.training.test_fixed_shapes import prepared_run  # noqa: F401

DROPOUT = {
    "tower": {"kind": "mlp", "dropout": 0.3},
    "train": {"id_dropout": 0.2, "epochs": 1, "batch_size": 100},
}


class Replay:
    """As a CUDA graph: it reads the rows and writes the loss at the same place each time, and the
    learning rate is what the tensor holds at that time.
    """

    def __init__(self, update, rows):
        self.update = update
        self.rows = replace(rows, at=rows.at.clone())
        self.loss = torch.zeros(())

    def __call__(self, rows):
        assert rows.sizes == self.rows.sizes
        self.rows.at.copy_(rows.at)
        self.loss.copy_(self.update(self.rows))
        return self.loss.clone()


def fit(run, folder, capture=None):
    """Weights of a training of two phases, with `capture` in place of a GPU's."""
    folder.mkdir()
    samples = run.step("sample_negatives")
    device, file = torch.device("cpu"), folder / "checkpoint.pt"
    logger = lambda values, step: None  # noqa: E731
    trainer = Trainer(run.config, load_prepared(samples), samples, device, file, logger)
    start = trainer._start

    def start_with_graphs(state):
        start(state)
        trainer.optimizers = replace(trainer.optimizers, rate=torch.zeros(()))
        trainer.update.optimizers = trainer.optimizers
        if capture:
            trainer.update.compute = Graphs(trainer.update._compute, capture)

    trainer._start = start_with_graphs
    model = trainer.fit()
    losses = [point.get("train_loss") for point in trainer.progress.history]
    return torch.cat([part.detach().flatten() for part in model.parameters()]), losses


@pytest.fixture(scope="module")
def run(prepared_run):  # noqa: F811
    return prepared_run(**DROPOUT)


@pytest.fixture
def padded(monkeypatch):
    monkeypatch.setattr(shapes, "fixed", lambda device: True)


def test_replayed_updates_are_those_that_are_computed_one_by_one(run, padded, tmp_path):
    captured = []

    def capture(update, rows):
        captured.append(rows.sizes)
        return Replay(update, rows)

    weights, losses = fit(run, tmp_path / "replayed", capture)
    expected, expected_losses = fit(run, tmp_path / "plain")
    assert torch.equal(weights, expected)
    assert losses == expected_losses
    phases = 2
    assert 1 <= len(set(captured)) <= 8
    assert len(captured) <= phases * len(set(captured))  # once for each size


def test_an_update_that_cannot_be_captured_is_computed_and_said_once(run, padded, tmp_path, caplog):
    def capture(update, rows):
        raise RuntimeError("operation not permitted when stream is capturing\nmore")

    with caplog.at_level(logging.WARNING):
        weights, _ = fit(run, tmp_path / "failed", capture)
    assert torch.equal(weights, fit(run, tmp_path / "plain")[0])
    said = [entry.getMessage() for entry in caplog.records if "CUDA graph" in entry.getMessage()]
    assert len(said) == len(set(said)) * 2  # for each size of each phase
    assert "operation not permitted" in said[0]
    assert "more" not in said[0]


def test_memory_that_is_used_up_by_a_capture_is_no_reason_to_go_on():
    def capture(update, rows):
        raise torch.OutOfMemoryError("no memory")

    rows = type("Rows", (), {"sizes": (1, 1, 1)})()
    graphs = Graphs(lambda rows: torch.zeros(()), capture)
    graphs(rows)
    with pytest.raises(torch.OutOfMemoryError):
        graphs(rows)


@pytest.mark.parametrize(
    ("changes", "parts"),
    [
        ({}, []),
        ({"sampler": {"kind": "unseen"}, "train": {"negatives": 5}}, ["Unseen"]),
        ({"train": {"sparse_rows": 10}}, ["SparseAdam"]),
        (
            {
                "features": {
                    "activity": {"enabled": False},
                    "columns": {"context": []},
                },
                "sampler": {"kind": "uniform"},
                "train": {"target": "rest"},
                "evaluation": {"baselines": ["hot"]},
            },
            ["UserExamples"],
        ),
    ],
    ids=str,
)
def test_what_has_no_graph_is_named(changes, parts, prepared_run):  # noqa: F811
    run = prepared_run(**changes)
    samples = run.step("sample_negatives")
    prepared = load_prepared(samples)
    objective = Objective(run.config, prepared, prepared.log, samples, "refit")
    model = TwoTower(run.config, prepared.schema, prepared.items)
    optimizers = make_optimizers(model, copy.deepcopy(model), run.config.train)
    assert objective.parts_of_changing_shapes + optimizers.parts_of_changing_shapes == parts
