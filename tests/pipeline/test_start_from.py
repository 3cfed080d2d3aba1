"""A training that starts from the weights of the registered champion of the day before."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file, save_file

from dssm_core.errors import ConfigError
from dssm_core.features.dataset import load_prepared
from dssm_core.features.ids import Ids
from dssm_core.models.two_tower import TwoTower
from dssm_core.registry.versions import CHAMPION, open_model
from dssm_core.runs.layout import START_FOLDER, VERSION_FILE
from dssm_core.runs.run import create_run
from dssm_core.runs.step_key import step_key
from dssm_core.runs.table import STEPS
from dssm_core.runs.transaction import execute
from dssm_core.tracking.client import connect
from dssm_core.tracking.runs import lineage_tags
from dssm_core.training.start import open_start
from tests.pipeline.conftest import tiny

YESTERDAY = {"test_day": "2024-03-06", "train_days": 5}
IDS = ("item_id", "user_id")


@pytest.fixture(autouse=True)
def no_server(monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


def run_until(config, runs, name, last):
    run = create_run(config, runs, name)
    for step in list(STEPS)[: list(STEPS).index(last) + 1]:
        execute(run, step)
    return run


@pytest.fixture(scope="module")
def days(tmp_path_factory):
    """A run of yesterday, whose version is the champion, and one of today that starts from it."""
    runs = tmp_path_factory.mktemp("runs")
    ids = {"user_id_dim": 4}
    first = tiny(
        split=YESTERDAY, train__start_from="champion", gate__min_queries=1, train__epochs=1
    )
    first = first.model_copy(update={"features": first.features.model_copy(update=ids)})
    yesterday = run_until(first, runs, "yesterday", "register_model")
    version = yesterday.need("register_model").info["version"]
    open_model("dssm-small", runs).point(CHAMPION, version)
    second = tiny(train__start_from="champion", gate__min_queries=1, train__epochs=1)
    second = second.model_copy(update={"features": second.features.model_copy(update=ids)})
    today = run_until(second, runs, "today", "log_to_mlflow")
    return yesterday, today, version


def new_model(run):
    """The towers before training, from the seed."""
    prepared = load_prepared(run.step("sample_negatives"))
    torch.manual_seed(run.config.seed)
    return TwoTower(run.config, prepared.schema, prepared.items)


def test_without_a_champion_training_starts_from_the_seed(days):
    yesterday, _, _ = days
    stored = json.loads((yesterday.root / START_FOLDER / VERSION_FILE).read_bytes())
    assert stored == {"model": "dssm-small", "version": None}
    assert open_start(yesterday) is None
    assert "started_from" not in yesterday.need("train_towers").info


def test_embeddings_are_matched_by_the_name_of_the_id(days):
    yesterday, today, _ = days
    weights = load_file(yesterday.step("train_towers") / "towers.safetensors")
    seeded, model = new_model(today), new_model(today)
    open_start(today).copy_into(model, today.step("sample_negatives"))
    for name in IDS:
        file = f"{name}s.parquet"
        new, old = (
            Ids.load(run.step("sample_negatives") / file).index.tolist()
            for run in (today, yesterday)
        )
        table = getattr(model, name).weight.detach().numpy()
        before = getattr(seeded, name).weight.detach().numpy()
        shared = sorted(set(new) & set(old))
        fresh = sorted(set(new) - set(old))
        assert len(shared) > 100
        assert fresh
        at = [new.index(value) + 1 for value in shared]
        theirs = [old.index(value) + 1 for value in shared]
        np.testing.assert_array_equal(table[at], weights[f"{name}.weight"].numpy()[theirs])
        at = [new.index(value) + 1 for value in fresh]
        np.testing.assert_array_equal(table[at], before[at])
        assert not table[0].any()  # the unknown


def test_all_other_weights_are_those_of_the_champion(days):
    yesterday, today, _ = days
    weights = load_file(yesterday.step("train_towers") / "towers.safetensors")
    model = new_model(today)
    open_start(today).copy_into(model, today.step("sample_negatives"))
    for name, parameter in model.named_parameters():
        if not name.startswith(IDS):  # all values of the other columns are in both logs
            torch.testing.assert_close(parameter.detach(), weights[name], rtol=0, atol=0)


def test_values_of_other_columns_are_matched_by_name(days, tmp_path):
    """A value that only the champion knows, listed first, moves the codes of all others."""
    _, today, _ = days
    samples = today.step("sample_negatives")
    start = open_start(today)
    expected = new_model(today)
    start.copy_into(expected, samples)
    older = shutil.copytree(start.folder, tmp_path / "start")
    file = older / "vocabulary.context.device.parquet"
    known = Ids.load(file).index.tolist()
    Ids(pd.Index(["console", *known])).save(file, "device")
    weights = load_file(older / "towers.safetensors")
    rows = len(known) + 1
    tables = [name for name in weights if "tables" in name and len(weights[name]) == rows]
    assert len(tables) == 2  # the context of the user, and the audience of the item
    for name in tables:
        extra = torch.full_like(weights[name][:1], 9.0)
        weights[name] = torch.cat([weights[name][:1], extra, weights[name][1:]])
    save_file(weights, older / "towers.safetensors")
    model = new_model(today)
    replace(start, folder=older).copy_into(model, samples)
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, expected.get_parameter(name)), name


def test_the_start_is_recorded_as_lineage(days):
    _, today, version = days
    name = f"dssm-small/{version}"
    assert today.need("train_towers").info["started_from"] == name
    assert lineage_tags(today) == {"dssm.started_from": name}
    entity = connect(today.runs).get_run(today.need("log_to_mlflow").info["run_id"])
    assert entity.data.tags["dssm.started_from"] == name


def test_another_champion_is_another_step(days):
    """A run keeps the version that it has fetched."""
    _, today, _ = days
    key = step_key(today, STEPS["train_towers"])
    assert key == today.need("train_towers").key
    file = today.root / START_FOLDER / VERSION_FILE
    before = file.read_bytes()
    file.write_text(json.dumps({"model": "dssm-small", "version": "9"}))
    assert step_key(today, STEPS["train_towers"]) != key
    file.write_bytes(before)


def test_other_settings_are_refused_with_both_values(days):
    _, today, version = days
    start = open_start(today)
    other = today.config.model_copy(
        update={"model": today.config.model.model_copy(update={"dim": 32})}
    )
    message = rf"dssm-small/{version} has other settings: model\.dim is 32, and was 64\. Take its"
    with pytest.raises(ConfigError, match=message):
        start.check(other, load_prepared(today.step("sample_negatives")).log.end)


def test_a_model_that_has_seen_the_held_out_clicks_is_refused(days):
    """The champion of the day whose clicks choose the number of epochs is the last that may."""
    _, today, version = days
    start = open_start(today)
    day_ms = 24 * 3_600_000
    cutoff = load_prepared(today.step("sample_negatives")).log.end
    start.check(today.config, cutoff - day_ms)
    message = rf"dssm-small/{version} was trained on clicks until 2024-03-06 00:00 UTC"
    with pytest.raises(ConfigError, match=message):
        start.check(today.config, cutoff - day_ms - 1)
