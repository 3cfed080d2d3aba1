"""From the trigger form to a run: what is refused, what is passed on."""

from __future__ import annotations

import re
from datetime import date
from types import SimpleNamespace

import pytest
import yaml

from dags.dssm_publish import NO_SECRETS
from dssm_core.config import read_config
from dssm_core.data import landing
from dssm_core.errors import ConfigError, DataError
from dssm_core.runs.run import open_run, read_origin
from tasks import settings
from tasks.links import public
from tests.conftest import small_config

EMPTY = dict.fromkeys(settings.SETTINGS)


@pytest.fixture
def folders(tmp_path, monkeypatch):
    (tmp_path / "configs").mkdir()
    raw = small_config()
    raw["data"]["timezone"] = "America/Sao_Paulo"
    (tmp_path / "configs" / "small.yaml").write_text(yaml.safe_dump(raw))
    monkeypatch.setenv("DSSM_CONFIGS", str(tmp_path / "configs"))
    monkeypatch.setenv("DSSM_RUNS", str(tmp_path / "runs"))
    return tmp_path


def context(partition_key=None, **params):
    dag_run = SimpleNamespace(
        dag_id="dssm_training",
        run_id="manual__2024-01-01T00:00:00+00:00",
        partition_key=partition_key,
    )
    return {
        "params": EMPTY
        | {"config": "small", "data": None, "landed": False, "settings": []}
        | params,
        "dag_run": dag_run,
    }


def test_filled_fields_replace_settings(folders):
    run = open_run(
        settings.make_run(
            context(
                epochs=3,
                gate_floor=0.25,
                sampler="uniform",
                test_day="2024-03-06",
                seed=9,
                device="cpu",
            )
        )
    )
    config = run.config
    assert (config.train.epochs, config.gate.floor, config.sampler.kind, config.seed) == (
        3,
        0.25,
        "uniform",
        9,
    )
    assert config.split.test_day == date(2024, 3, 6)
    assert run.root.is_relative_to(folders / "runs")


def test_a_run_knows_which_dag_run_it_is_of(folders):
    run = open_run(settings.make_run(context()))
    assert read_origin(run) == {
        "airflow.dag_id": "dssm_training",
        "airflow.run_id": "manual__2024-01-01T00:00:00+00:00",
    }


def test_every_field_has_an_effect(folders):
    plain = open_run(settings.make_run(context())).config
    values = {"test_day": "2024-03-05", "epochs": 7, "device": "cuda", "seed": 3, "gate_floor": 0.9}
    values |= {"tower": "mlp", "loss": "bce", "sampler": "popularity", "baselines": ["hot"]}
    assert set(values) == set(settings.SETTINGS)
    for number, (field, value) in enumerate(values.items()):
        changed = context(**{field: value})
        changed["dag_run"].run_id = f"run-{number}"
        assert field == "tower" or open_run(settings.make_run(changed)).config != plain


def test_empty_form_is_the_config(folders):
    assert open_run(settings.make_run(context())).config.train.epochs == 2


def test_run_id_of_airflow_becomes_a_folder(folders):
    assert open_run(settings.make_run(context())).id == "manual__2024-01-01T00-00-00-00-00"


def test_further_settings_come_last(folders):
    config = open_run(
        settings.make_run(context(epochs=3, settings=["train.epochs=5", "model.dim=8"]))
    ).config
    assert (config.train.epochs, config.model.dim) == (5, 8)


def test_a_windows_run_reads_its_landed_days(folders, monkeypatch):
    monkeypatch.setenv("DSSM_DAYS", str(folders / "days"))
    with pytest.raises(DataError, match=r"2024-03-01, .*2024-03-07 of 'small' have not landed"):
        settings.make_run(context("2024-03-07"))
    config = read_config(folders / "configs" / "small.yaml")
    for day in range(1, 8):
        landing.land(config, date(2024, 3, day), folders / "days")
    run = open_run(settings.make_run(context("2024-03-07")))
    assert run.config.split.test_day == date(2024, 3, 7)
    assert run.config.data.source.kind == "landed"
    by_hand = open_run(settings.make_run(context(landed=True, test_day="2024-03-07"))).config
    assert by_hand == run.config


@pytest.mark.parametrize(
    "name", ["../small", "/etc/passwd", "", "small.yaml", "small; rm -rf /", "$(id)"]
)
def test_config_is_chosen_not_built(folders, name):
    with pytest.raises(ConfigError, match="is not one of small"):
        settings.make_run(context(config=name))


@pytest.mark.parametrize("path", ["relative/folder", "/does/not/exist", "$(id)", "; ls"])
def test_data_must_be_an_absolute_path_that_exists(folders, path):
    with pytest.raises(ConfigError, match="absolute path"):
        settings.data_path(path)


def test_data_stays_below_its_roots(folders, monkeypatch):
    monkeypatch.setenv("DSSM_DATA_ROOTS", str(folders / "configs"))
    inside = folders / "configs" / "small.yaml"
    assert settings.data_path(str(inside)) == inside
    with pytest.raises(ConfigError, match="outside"):
        settings.data_path(str(folders / "configs" / ".."))


def test_of_two_test_days_the_window_ends_on_the_second(folders, monkeypatch):
    monkeypatch.setenv("DSSM_DAYS", str(folders / "days"))
    config = read_config(folders / "configs" / "small.yaml")
    for day in range(1, 8):
        landing.land(config, date(2024, 3, day), folders / "days")
    split = open_run(
        settings.make_run(
            context("2024-03-07", settings=["split.train_days=5", "split.test_days=2"])
        )
    ).config.split
    assert split.days == [date(2024, 3, day) for day in range(1, 8)]


@pytest.mark.parametrize(
    "setting",
    [
        "data.source.path=/etc",
        "data={source: {kind: parquet, path: /etc}}",
        "data.source.kind=parquet",
    ],
)
def test_settings_of_the_log_are_not_a_way_around_its_roots(folders, monkeypatch, setting):
    assert settings.further_settings([setting]) == [setting]
    monkeypatch.setenv("DSSM_DATA_ROOTS", "/data")
    with pytest.raises(ConfigError, match=r"\$DSSM_DATA_ROOTS limits: fill in the field `data`"):
        settings.make_run(context(settings=[setting]))
    assert settings.further_settings(["sampler=active,popularity"]) == ["sampler=active,popularity"]


def test_a_value_cannot_become_another_setting(folders):
    with pytest.raises(ConfigError):
        settings.make_run(context(device="cpu\nseed: 1"))


def test_the_button_leads_where_browsers_can_go(monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://mlflow:5000")
    monkeypatch.delenv("MLFLOW_PUBLIC_URL", raising=False)
    assert public("http://mlflow:5000/#/runs/1") == "http://mlflow:5000/#/runs/1"
    monkeypatch.setenv("MLFLOW_PUBLIC_URL", "https://ml.example.com/")
    assert public("http://mlflow:5000/#/runs/1") == "https://ml.example.com/#/runs/1"


def test_the_address_of_mlflow_is_asked_without_its_password(monkeypatch):
    """httpx logs each address that it asks."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://me:p%40ss@mlflow:5000/ml/")
    monkeypatch.delenv("MLFLOW_PUBLIC_URL", raising=False)
    assert settings.mlflow_address() == "https://mlflow:5000/ml"
    assert settings.mlflow_credentials() == {"auth": ("me", "p@ss")}
    page = public("https://***@mlflow:5000/ml/#/experiments/1")
    assert page == "https://***@mlflow:5000/ml/#/experiments/1"
    monkeypatch.setenv("MLFLOW_PUBLIC_URL", "https://people")
    assert public(page) == "https://people/#/experiments/1"


def test_lists_are_published_where_their_length_is_set(monkeypatch):
    monkeypatch.delenv("DSSM_PUBLISH_LISTS", raising=False)
    assert settings.published_lists() is None
    for text, k in (("", None), ("200", 200)):
        monkeypatch.setenv("DSSM_PUBLISH_LISTS", text)
        assert settings.published_lists() == k
    monkeypatch.setenv("DSSM_PUBLISH_LISTS", "many")
    with pytest.raises(ConfigError, match=r"DSSM_PUBLISH_LISTS is 'many': give a whole number"):
        settings.published_lists()


@pytest.mark.parametrize(
    ("target", "accepted"),
    [
        ("/data/published", True),
        ("redis://cache:6379/0", True),
        ("redis://:secret@cache:6379/0", False),
        ("redis://cache:6379/0?password=secret", False),
    ],
)
def test_the_publish_form_takes_no_secrets(target, accepted):
    """Airflow shows the values of a form to everybody who may see the Dag."""
    assert (re.match(NO_SECRETS, target) is not None) == accepted
