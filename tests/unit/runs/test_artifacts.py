import json

import pytest

from dssm_core.config import parse_config
from dssm_core.errors import ArtifactError, ConfigError, ServiceError
from dssm_core.runs import run as artifacts
from tests.conftest import small_config


def config(**changes):
    return parse_config(small_config(**changes))


def test_a_run_is_found_again_and_refused_with_other_settings(tmp_path):
    run = artifacts.create_run(config(), tmp_path, "one")
    assert artifacts.create_run(config(), tmp_path, "one") == run
    assert run.root == tmp_path / "small" / "2024-03-07" / "one"
    with pytest.raises(
        ConfigError, match=r"'one' exists with other settings .* choose another run id"
    ):
        artifacts.create_run(config(seed=1), tmp_path, "one")


def test_a_run_of_before_there_were_kinds_of_split_is_found_again(tmp_path):
    run = artifacts.create_run(config(), tmp_path, "one")
    settings = json.loads((run.root / "config.json").read_text())
    settings["split"] = {"test_day": "2024-03-07", "train_days": 6, "test_days": 1}
    (run.root / "config.json").write_text(json.dumps(settings))
    assert (
        artifacts.open_run(run.root).config
        == artifacts.create_run(config(), tmp_path, "one").config
    )


@pytest.mark.parametrize("run_id", ["../up", "a/b", "", ".hidden", "a b", "x" * 300])
def test_a_run_id_cannot_leave_its_folder(run_id, tmp_path):
    with pytest.raises(ConfigError, match="run id"):
        artifacts.create_run(config(), tmp_path, run_id)


def test_airflow_run_ids_become_safe():
    assert (
        artifacts.safe_run_id("manual__2026-01-02T03:04:05.6+00:00")
        == "manual__2026-01-02T03-04-05.6-00-00"
    )
    assert artifacts.safe_run_id("../../etc") == "etc"
    assert artifacts.safe_run_id("::") == "run"


def test_not_a_run_folder(tmp_path):
    with pytest.raises(ArtifactError, match=r"no config\.json"):
        artifacts.open_run(tmp_path)


def test_an_unfinished_step_says_what_to_run(tmp_path):
    run = artifacts.create_run(config(), tmp_path, "one")
    with pytest.raises(
        ArtifactError, match=r"no finished 'split_by_time': run `dssm split_by_time --run "
    ):
        run.need("split_by_time")


def test_a_damaged_manifest_says_what_to_remove(tmp_path):
    (tmp_path / "manifest.json").write_text('{"step":')
    with pytest.raises(ArtifactError, match="damaged: remove"):
        artifacts.read_manifest(tmp_path)


def test_write_atomically_leaves_the_old_content_on_failure(tmp_path, monkeypatch):
    file = tmp_path / "a.json"
    artifacts.write_atomically(file, b"old")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(artifacts.os, "replace", full)
    with pytest.raises(ServiceError, match=r"cannot write .*a\.json: No space left"):
        artifacts.write_atomically(file, b"new")
    assert file.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [file]


def test_runs_and_twins(tmp_path):
    one, two = (artifacts.create_run(config(), tmp_path, name) for name in ("one", "two"))
    other_day = artifacts.create_run(config(split={"test_day": "2024-03-06"}), tmp_path, "three")
    assert {run.id for run in artifacts.find_runs(tmp_path)} == {"one", "two", "three"}
    assert artifacts.find_twins(one) == [two]
    assert artifacts.find_twins(other_day) == []


def test_a_run_of_another_version_is_left_out_with_a_warning(tmp_path, caplog):
    run = artifacts.create_run(config(), tmp_path, "one")
    old = tmp_path / "small" / "2024-03-07" / "old"
    old.mkdir()
    (old / "config.json").write_text('{"name": "small"}')
    assert artifacts.find_runs(tmp_path) == [run]
    assert "settings of another version" in caplog.text


def test_digest_ignores_the_order_of_keys():
    assert artifacts.digest({"a": 1, "b": 2}) == artifacts.digest(json.loads('{"b": 2, "a": 1}'))
