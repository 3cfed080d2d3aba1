"""Two processes with half of every batch each are one process with the whole batch."""

import itertools
import json
import socket

import pytest
import torch
import torch.distributed as dist
from click.testing import CliRunner
from safetensors.torch import load_file
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, ProcessFailure

from dssm_core.config import Train, parse_config
from dssm_core.errors import ConfigError, ServiceError
from dssm_core.runs.layout import HISTORY_FILE, TOWERS_FILE
from dssm_core.runs.run import create_run
from dssm_core.runs.transaction import execute
from dssm_core.training import processes
from dssm_core.training.__main__ import main
from dssm_core.training.ranks import ALONE
from dssm_core.training.train_towers import train
from tests.conftest import small_config
from tests.unit.training.in_ranks import disturbed, diverging, idle, no_logger, of_batches
from tests.unit.training.in_ranks import undisturbed as cases_and_training

BEFORE_TRAINING = ("ingest_data", "validate_data", "split_by_time", "sample_negatives")
WITHOUT_ACTIVITY = {
    "features__activity": {"enabled": False},
    "features__columns": {},
    "data__weight": {"column": "device", "values": {"mobile": 1, "desktop": 3, "tablet": 0}},
    "sampler": {"kind": "uniform"},
    "evaluation__baselines": ["hot"],
}
CASES = {
    "bce": {"loss": {"kind": "bce"}},
    "bce, own negatives": {"loss": {"kind": "bce", "log_q": False}, "sampler": {"kind": "unseen"}},
    "own negatives by place": {"sampler": {"kind": "unseen"}, "train__negatives": 10},
    "sampled softmax": {"loss": {"kind": "sampled_softmax"}, "train__sparse_rows": 10},
    "in-batch softmax": {
        "loss": {"kind": "in_batch_softmax"},
        "sampler": {"kind": "in_batch"},
        "train__negatives": 1024,
    },
    "mixed negatives": {"loss": {"kind": "in_batch_softmax"}, "train__id_dropout": 0.2},
    "full softmax": {"loss": {"kind": "full_softmax"}, "train__negatives": 1024},
    "ccl": {"loss": {"kind": "ccl"}},
    "histories, weights": WITHOUT_ACTIVITY | {"loss": {"kind": "in_batch_softmax"}},
    "users, weights": WITHOUT_ACTIVITY | {"train__target": "rest"},
}
TWO = {"processes": 2, "rank_timeout_s": 10.0, "checkpoint_every_s": 0.0}


@pytest.fixture(scope="module")
def prepared_run(tmp_path_factory):
    counter = itertools.count()
    folder = tmp_path_factory.mktemp("runs")

    def make(train, **changes):
        raw = small_config(**changes)
        raw["data"]["source"] |= {"users": 300, "items": 400, "clicks": 5_000}
        raw["train"] |= train
        run = create_run(parse_config(raw), folder, f"run{next(counter)}")
        for name in BEFORE_TRAINING:
            execute(run, name)
        return run

    return make


@pytest.fixture(scope="module")
def runs(prepared_run):
    return {name: prepared_run(TWO, **changes) for name, changes in CASES.items()}


@pytest.fixture(scope="module")
def undisturbed(runs, tmp_path_factory):
    """The folder of what two processes found and trained; see `in_ranks.undisturbed`."""
    work = tmp_path_factory.mktemp("undisturbed")
    roots = [run.root for run in runs.values()]
    processes.launch(cases_and_training, runs["in-batch softmax"], work, roots)
    return work


@pytest.mark.parametrize("name", CASES)
def test_two_processes_have_the_loss_and_the_gradients_of_one(name, runs, undisturbed):
    """Also those of a batch that has fewer rows than there are processes."""
    found = torch.load(undisturbed / f"{runs[name].root.name}.pt")
    for number, (one, two) in enumerate(zip(of_batches(runs[name], ALONE), found, strict=True)):
        assert torch.allclose(one, two, rtol=1e-4, atol=1e-6), number


def test_two_processes_train_the_towers_of_one(runs, undisturbed, tmp_path):
    alone = train(runs["in-batch softmax"], tmp_path, no_logger)
    assert alone.rows["steps"] > 0
    one, two = (load_file(folder / TOWERS_FILE) for folder in (tmp_path, undisturbed))
    for name, weights in one.items():
        assert torch.allclose(weights, two[name], atol=1e-3), name
    one, two = (history(folder) for folder in (tmp_path, undisturbed))
    assert [point.keys() for point in one] == [point.keys() for point in two]
    losses = [
        [point["train_loss"] for point in points if "train_loss" in point] for points in (one, two)
    ]
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)


def history(folder):
    return [json.loads(line) for line in (folder / HISTORY_FILE).read_text().splitlines()]


def test_a_rank_that_is_killed_and_one_that_hangs_leave_the_weights_of_an_undisturbed_training(
    runs, undisturbed, tmp_path, monkeypatch
):
    monkeypatch.setenv("TORCH_ELASTIC_SHUTDOWN_TIMEOUT", "1")  # until a stopped process is killed
    outcome = processes.launch(disturbed, runs["in-batch softmax"], tmp_path, no_logger)
    assert outcome.info["processes"] == 2
    first, second, third = map(int, (tmp_path / "attempts.txt").read_text().split())
    assert first == 0 < second <= third
    for file in (TOWERS_FILE, HISTORY_FILE):
        assert (tmp_path / file).read_bytes() == (undisturbed / file).read_bytes()


@pytest.fixture
def one_rank(monkeypatch):
    """This process as the only one that torch's launcher has started."""
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        port = probe.getsockname()[1]
    names = {"RANK": 0, "WORLD_SIZE": 1, "LOCAL_RANK": 0, "LOCAL_WORLD_SIZE": 1}
    for name, value in (names | {"MASTER_ADDR": "localhost", "MASTER_PORT": port}).items():
        monkeypatch.setenv(name, str(value))


def launcher(monkeypatch, call):
    """Replace torch's launcher: `call(function, arguments)` gives its result."""
    place = "torch.distributed.launcher.api.elastic_launch"
    monkeypatch.setattr(
        place, lambda config, function: lambda *arguments: call(function, arguments)
    )


def test_an_error_that_no_restart_can_change_is_raised_as_it_is(
    runs, one_rank, tmp_path, monkeypatch
):
    run = runs["bce"]
    attempts = []

    def restart(function, arguments):
        with pytest.raises(ConfigError):
            function(*arguments)
        attempts.append(function(*arguments))  # the second attempt
        return {0: None}

    launcher(monkeypatch, restart)
    with pytest.raises(ConfigError, match="training diverged"):
        processes.launch(diverging, run, tmp_path, no_logger)
    assert attempts == [None]
    assert list(tmp_path.iterdir()) == []
    launcher(monkeypatch, lambda function, arguments: {0: function(*arguments)})
    assert processes.launch(idle, run, tmp_path, no_logger).rows == {"size": 1}


def test_processes_that_fail_too_often_are_worth_a_retry(runs, tmp_path, monkeypatch):
    def fail(function, arguments):
        raise ChildFailedError("rank", {1: ProcessFailure(1, 77, -9, "none")})

    launcher(monkeypatch, fail)
    with pytest.raises(ServiceError, match=r"process 1 of 2 .* also after 3 restarts: Signal 9"):
        processes.launch(idle, runs["bce"], tmp_path, no_logger)


def test_a_process_that_waits_in_vain_names_the_setting():
    settings = Train(rank_timeout_s=5)
    waited = r"process 0 waited 5 s .* raise train.rank_timeout_s"
    with pytest.raises(TimeoutError, match=waited), processes._timeouts(settings, ALONE):
        raise RuntimeError("Timed out waiting 5000ms for recv operation to complete")
    with pytest.raises(RuntimeError, match="another"), processes._timeouts(settings, ALONE):
        raise RuntimeError("another")


def test_the_step_under_torchrun(prepared_run, one_rank, local_mlflow, monkeypatch):
    run = prepared_run({"processes": 1, "epochs": 1})
    done = CliRunner().invoke(main, [str(run.root)], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    assert not dist.is_initialized()
    assert run.need("train_towers").rows["steps"] > 0
    refuse_torchrun(run, monkeypatch)


def refuse_torchrun(run, monkeypatch):
    monkeypatch.setenv("TORCHELASTIC_MAX_RESTARTS", "3")
    monkeypatch.setenv("TORCHELASTIC_USE_AGENT_STORE", "True")
    refused = CliRunner().invoke(main, [str(run.root)])
    assert "set TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1 where torchrun starts" in refused.output
    monkeypatch.setenv("WORLD_SIZE", "4")
    refused = CliRunner().invoke(main, [str(run.root)])
    assert refused.exit_code == 1
    assert "torchrun has started 4 processes, and train.processes of this run is 1" in (
        refused.output
    )


def test_more_processes_than_gpus_or_events_are_refused(monkeypatch):
    monkeypatch.setattr(processes, "choose_device", lambda name: torch.device("cuda"))
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    processes.check_gpus(Train(processes=2), 2)
    with pytest.raises(ConfigError, match=r"4 processes .* torch sees 2: set train.processes to 2"):
        processes.check_gpus(Train(processes=4), 4)
    with pytest.raises(ValueError, match=r"train.processes is 8, above train.batch_size \(4\)"):
        Train(processes=8, batch_size=4)
