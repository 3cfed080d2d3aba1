"""What a GPU is asked for, and what is refused, as far as a CPU can show it."""

import os

import pytest
import torch
from torch.utils import deterministic as determinism

from dssm_core.errors import ConfigError
from dssm_core.features.dataset import load_prepared
from dssm_core.models.pooling import sum_by_product
from dssm_core.training import device as device_module
from dssm_core.training import trainer as trainer_module
from dssm_core.training.device import (
    CUBLAS,
    GIB,
    check_memory,
    deterministic,
    device_errors,
    memory_parts,
)
from dssm_core.training.trainer import Trainer
from tests.unit.training.test_fixed_shapes import prepared_run  # noqa: F401


@pytest.fixture(scope="module")
def run(prepared_run):  # noqa: F811
    return prepared_run()


@pytest.fixture
def prepared(run):
    return load_prepared(run.step("sample_negatives"))


def state():
    return (
        torch.are_deterministic_algorithms_enabled(),
        determinism.fill_uninitialized_memory,
        os.environ.get(CUBLAS),
    )


@pytest.mark.parametrize("workspace", [None, ":16:8"])
def test_the_process_is_as_before_after_a_training(workspace, monkeypatch):
    monkeypatch.delenv(CUBLAS, raising=False)
    if workspace:
        monkeypatch.setenv(CUBLAS, workspace)
    before = state()
    assert before == (False, True, workspace)
    with deterministic(True):
        assert state() == (True, False, workspace or ":4096:8")
    assert state() == before
    with deterministic(False):
        assert state() == before


@pytest.mark.parametrize(("enabled", "on_gpu"), [(True, True), (False, True), (True, False)])
def test_only_a_gpu_computes_by_deterministic_kernels_unless_it_is_off(
    enabled, on_gpu, run, prepared, tmp_path, monkeypatch
):
    config = run.config.model_copy(
        update={"train": run.config.train.model_copy(update={"deterministic": enabled})}
    )
    samples = run.step("sample_negatives")
    trainer = Trainer(
        config, prepared, samples, torch.device("cpu"), tmp_path / "c.pt", lambda values, step: None
    )
    trainer.on_gpu = on_gpu
    monkeypatch.setattr(trainer, "_run_phases", torch.are_deterministic_algorithms_enabled)
    assert trainer.fit() is (enabled and on_gpu)


def test_running_sums_of_floats_as_products_are_the_running_sums():
    values = torch.randn(3, 7, 4, generator=torch.Generator().manual_seed(0))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        torch.testing.assert_close(sum_by_product(values), values.cumsum(1))


def test_memory_by_hand(run, prepared):
    """The model's numbers are weights, average, gradients and two moments."""
    parts = memory_parts(run.config, prepared)
    (parameters, data, vectors, logits) = (part.size for part in parts)
    from dssm_core.models.two_tower import TwoTower

    model = TwoTower(run.config, prepared.schema, prepared.items)
    assert parameters == 5 * 4 * sum(part.numel() for part in model.parameters())
    assert data > 8 * 3 * len(prepared.log.item)
    train, dim = run.config.train, run.config.model.dim
    assert vectors == 2 * (train.batch_size + train.negatives) * dim * 4
    assert logits == train.batch_size * train.negatives * 4
    assert train.batch_size < len(prepared.log.item)


def test_memory_of_own_candidates_by_hand(run, prepared):
    """Scores of all events and distinct items, if these are fewer numbers than all vectors."""
    raw = run.config.model_dump(mode="json") | {"sampler": {"kind": "unseen"}}
    train, dim, items = run.config.train, run.config.model.dim, prepared.schema.items
    config = type(run.config).model_validate(raw)
    vectors, logits = (part.size for part in memory_parts(config, prepared)[2:])
    pairs = train.batch_size * train.negatives
    assert items <= train.negatives * dim
    assert vectors == 2 * (train.batch_size + items) * dim * 4
    assert logits == (9 * pairs + 2 * train.batch_size * items) * 4
    raw["train"] |= {"negatives": 1}
    raw["model"] |= {"dim": 2}
    config = type(run.config).model_validate(raw)
    vectors, logits = (part.size for part in memory_parts(config, prepared)[2:])
    assert vectors == 2 * (train.batch_size + train.batch_size) * 2 * 4
    assert logits == 9 * train.batch_size * 4


@pytest.mark.parametrize(
    ("changes", "setting"),
    [
        ({"train__negatives": 90_000_000, "loss": {"kind": "bce"}}, "Lower train.batch_size"),
        (
            {
                "train__negatives": 3_000_000,
                "train__batch_size": 4096,
                "sampler": {"kind": "unseen"},
            },
            "Lower train.batch_size",
        ),
        ({"features__id_dim": 60_000_000}, "Lower features.id_dim"),
    ],
    ids=str,
)
def test_what_cannot_fit_is_refused_with_the_arithmetic(changes, setting, run, prepared):
    raw = run.config.model_dump(mode="json")
    for path, value in changes.items():
        section, _, name = path.partition("__")
        if name:
            raw[section][name] = value
        else:
            raw[section] = value
    config = type(run.config).model_validate(raw)
    with pytest.raises(ConfigError) as refused:
        check_memory(config, prepared, 80 * GIB)
    message = str(refused.value)
    assert "the GPU has 80.0 GiB" in message
    assert setting in message
    assert "train.batch_size" in message or "features.id_dim" in message
    check_memory(run.config, prepared, GIB)


def test_a_gpu_checks_its_memory_before_training(run, prepared, tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(trainer_module, "check_memory", lambda *given: seen.append(given[2]))
    properties = type("Properties", (), {"total_memory": 5 * GIB})
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: properties)
    device, file = torch.device("cuda"), tmp_path / "checkpoint.pt"
    monkeypatch.setattr(type(prepared), "to", lambda self, device: self)
    Trainer(run.config, prepared, run.step("sample_negatives"), device, file, print)
    assert seen == [5 * GIB]


def test_memory_that_ends_in_a_step_is_an_error_that_is_not_retried(run, prepared):
    said = "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has"
    with (
        pytest.raises(ConfigError, match=r"no memory left .*CUDA out of memory.* Lower "),
        device_errors(run.config, prepared),
    ):
        raise torch.OutOfMemoryError(said)


def test_an_operation_without_a_deterministic_kernel_says_what_to_set(run, prepared):
    said = "put_cuda_ does not have a deterministic implementation, but you set 'torch.use…'. You"
    with (
        pytest.raises(ConfigError, match=r"set train.deterministic to false"),
        device_errors(run.config, prepared),
    ):
        raise RuntimeError(said)
    with pytest.raises(RuntimeError, match="other"), device_errors(run.config, prepared):
        raise RuntimeError("other")
    assert device_module.choose_device("cpu") == torch.device("cpu")
