"""Secrets in addresses: masked in every message, result and file."""

import json
import traceback
from datetime import UTC, datetime

import pytest

from dssm_core.errors import ConfigError, ServiceError, masked
from dssm_core.operation import promotion
from dssm_core.operation.publish import open_target, publish
from dssm_core.registry.versions import RegisteredModel
from dssm_core.retrieval.bundle import assemble, open_bundle
from dssm_core.tracking.client import connect, mlflow_errors
from dssm_core.tracking.runs import mlflow_run_url, open_mlflow_run

SECRET = "hunter2"


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        (f"redis://:{SECRET}@cache:6379/0", "redis://***@cache:6379/0"),
        (f"rediss://me:{SECRET}@cache", "rediss://***@cache"),
        (f"redis://:{SECRET}@x@cache/0", "redis://***@cache/0"),
        (f"redis://:{SECRET}/x@cache/0", "redis://***@cache/0"),
        (f"redis://:{SECRET}?#x@cache/0", "redis://***@cache/0"),
        (f"redis://cache/0?password={SECRET}&db=1", "redis://cache/0?password=***&db=1"),
        (f"http://{SECRET}@mlflow:5000", "http://***@mlflow:5000"),
        (f"postgresql+psycopg2://dssm:{SECRET}@db/mlflow", "postgresql+psycopg2://***@db/mlflow"),
        (
            f"MLflow at https://a:{SECRET}@m:5000/ml failed: x",
            "MLflow at https://***@m:5000/ml failed: x",
        ),
        (f"https://m/api?access_token={SECRET}", "https://m/api?access_token=***"),
        ("http://127.0.0.1:5000/#/models/x@champion", "http://127.0.0.1:5000/#/models/x@champion"),
        ("sqlite:////runs/a@b/mlflow.db", "sqlite:////runs/a@b/mlflow.db"),
        ("redis://localhost:6379/0, then mail a@b.c", "redis://localhost:6379/0, then mail a@b.c"),
        ("models:/dssm-demo@champion", "models:/dssm-demo@champion"),
    ],
)
def test_what_is_shown_of_an_address(address, shown):
    assert masked(address) == shown
    assert str(ConfigError(address)) == shown


def test_an_error_of_mlflow_shows_no_secret_and_its_traceback_neither():
    uri = f"http://me:{SECRET}@mlflow:5000"
    with pytest.raises(ServiceError) as failed, mlflow_errors(uri):
        raise OSError(f"API request to {uri}/api failed")
    shown = "".join(traceback.format_exception(failed.value))
    assert "MLflow at http://***@mlflow:5000 failed: API request to http://***@" in shown
    assert SECRET not in shown


def test_what_is_published_is_returned_without_the_password(fabricate, tmp_path, monkeypatch):
    from dssm_core.operation.targets.redis import RedisTarget

    monkeypatch.setattr(RedisTarget, "current", lambda self, model: None)
    monkeypatch.setattr(RedisTarget, "publish", lambda self, *_: None)
    bundle = open_bundle(assemble(fabricate(), tmp_path / "bundle"))
    done = publish(bundle, "dssm-made", "3", f"redis://:{SECRET}@cache:6379/0")
    assert done["target"] == "redis://***@cache:6379/0"
    assert SECRET not in json.dumps(done)


@pytest.mark.parametrize(
    "target",
    [
        f"redis://:{SECRET}@127.0.0.1:9/0",
        f"redis://:{SECRET}/x@127.0.0.1:9/0",
        f"redis://:{SECRET} x@127.0.0.1:9/0",
        f"redis://127.0.0.1:9/0?password={SECRET}",
        f"redis://127.0.0.1:9/0?socket_timeout={SECRET}&password={SECRET}",
        f"s3://key:{SECRET}@bucket/x",
    ],
)
def test_a_target_that_fails_shows_no_password(target):
    pytest.importorskip("redis")
    with pytest.raises((ConfigError, ServiceError)) as failed:
        open_target(target).current("dssm-made")
    assert SECRET not in "".join(traceback.format_exception(failed.value))


@pytest.mark.usefixtures("local_mlflow")
def test_the_files_of_a_run_and_the_history_hold_no_secret(fabricate, monkeypatch):
    """A server with a password is the same server with another password."""
    from dssm_core.tracking import runs

    run = fabricate()
    real = connect(run.runs)
    uri = f"https://me:{SECRET}@mlflow:5000"
    monkeypatch.setattr(runs, "connect", lambda folder: real)
    monkeypatch.setattr(runs, "tracking_uri", lambda folder: uri)
    opened = open_mlflow_run(run)
    assert opened.url.startswith("https://***@mlflow:5000/#/experiments/")
    assert mlflow_run_url(run) == opened.url
    assert SECRET not in (run.root / "mlflow.json").read_text()
    assert open_mlflow_run(run) == opened  # remembered, and not created again
    real.create_registered_model("dssm-made")
    real.create_model_version("dssm-made", "x")
    monkeypatch.setattr(
        promotion, "open_model", lambda name, folder: RegisteredModel(name, uri, real)
    )
    at = datetime(2024, 3, 8, tzinfo=UTC)
    promotion.decide("promote", "dssm-made", run.runs, at, "a test", version="1")
    (file,) = (run.runs / "history").glob("*.jsonl")
    assert '"server":"https://***@mlflow:5000"' in file.read_text().replace('": "', '":"')
    assert SECRET not in file.read_text()
    assert SECRET not in json.dumps(dict(real.get_model_version("dssm-made", "1").tags))
    uri = uri.replace(SECRET, "another")
    assert promotion.current_history("dssm-made", run.runs, at)[-1].version == "1"
