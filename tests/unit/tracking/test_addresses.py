"""The address of MLflow, and names of settings in it."""

from pathlib import Path

import pytest
from mlflow import MlflowClient

from dssm_core.errors import ConfigError
from dssm_core.runs.pipeline import run_step
from dssm_core.tracking.client import connect, tracking_uri
from dssm_core.tracking.runs import param_name

pytestmark = pytest.mark.usefixtures("local_mlflow")


@pytest.mark.parametrize("name", ["feature%2Fx", "what?", "a#b", "50% off", "a b", "ü"])
def test_any_name_of_the_folder_of_runs(tmp_path, name):
    runs = tmp_path / name / "runs"
    connect(runs).create_experiment("x")
    assert (runs / "mlflow.db").is_file()
    assert connect(runs).get_experiment_by_name("x")


@pytest.mark.parametrize(
    "address",
    [
        "http://localhost:5000",
        "https://mlflow.example.com/path",
        "postgresql://user@host/db",
        "postgresql+psycopg2:///db",
        "mysql+pymysql://host/db",
        "databricks",
        "databricks://profile",
        "sqlite:////data/mlflow.db",
    ],
)
def test_an_address_is_used_as_it_is(monkeypatch, tmp_path, address):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
    assert tracking_uri(tmp_path) == address


def test_a_relative_sqlite_file_is_one_file_for_every_process(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///my.db?timeout=5")
    assert tracking_uri(Path("runs")) == f"sqlite:///{tmp_path}/my.db?timeout=5"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///my.db")
    connect(Path("runs")).create_experiment("x")
    address = tracking_uri(Path("runs"))
    monkeypatch.chdir("/")
    assert MlflowClient(tracking_uri=address).get_experiment_by_name("x")


@pytest.mark.parametrize(
    "address",
    [
        "localhost:5000",
        "./mlruns",
        "/data/mlruns",
        "file:///mlruns",
        "http://",
        "sqlite:///",
        "x://y",
    ],
)
def test_what_is_no_address_is_refused_before_any_work(fabricate, monkeypatch, address):
    run = fabricate()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
    with pytest.raises(ConfigError, match=r"MLFLOW_TRACKING_URI is '.*': give the address of a"):
        run_step(run, "ingest_data")
    assert not run.step("ingest_data").exists()
    assert not run.failed("ingest_data").exists()


def test_names_of_settings_that_mlflow_refuses(fabricate):
    keys = [
        "train.epochs",
        "validation.ranges.price (€)",
        "validation.ranges.price [€]",
        "validation.ranges.a/../b",
        "data.source.interactions.columns.ÄÖ: x",
        "validation.ranges." + "x" * 300,
        "validation.ranges." + "x" * 301,
    ]
    names = [param_name(key) for key in keys]
    assert names[:2] == ["train.epochs", "validation.ranges.price _28__20ac__29_"]
    assert len(set(names)) == len(keys)
    client = connect(fabricate().runs)
    run_id = client.create_run(client.create_experiment("x")).info.run_id
    for name in names:
        client.log_param(run_id, name, "1")
    assert client.get_run(run_id).data.params == dict.fromkeys(names, "1")
