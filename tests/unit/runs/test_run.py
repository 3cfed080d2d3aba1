import json
import os

import pytest

from dssm_core.config import parse_config
from dssm_core.errors import ArtifactError, ConfigError, ServiceError
from dssm_core.runs.files import digest, write_atomically
from dssm_core.runs.manifest import read_manifest
from dssm_core.runs.run import create_run, find_runs, find_twins, open_run, safe_run_id
from tests.conftest import small_config


def config(**changes):
    return parse_config(small_config(**changes))


def test_a_run_is_found_again_and_refused_with_other_settings(tmp_path):
    run = create_run(config(), tmp_path, "one")
    assert create_run(config(), tmp_path, "one") == run
    assert run.root == tmp_path / "small" / "2024-03-07" / "one"
    with pytest.raises(
        ConfigError, match=r"'one' exists with other settings .* choose another run id"
    ):
        create_run(config(seed=1), tmp_path, "one")


def test_a_run_of_before_there_were_kinds_of_split_is_found_again(tmp_path):
    run = create_run(config(), tmp_path, "one")
    settings = json.loads((run.root / "config.json").read_text())
    settings["split"] = {"test_day": "2024-03-07", "train_days": 6, "test_days": 1}
    (run.root / "config.json").write_text(json.dumps(settings))
    assert open_run(run.root).config == create_run(config(), tmp_path, "one").config


@pytest.mark.parametrize("run_id", ["../up", "a/b", "", ".hidden", "a b", "x" * 300])
def test_a_run_id_cannot_leave_its_folder(run_id, tmp_path):
    with pytest.raises(ConfigError, match="run id"):
        create_run(config(), tmp_path, run_id)


def test_airflow_run_ids_become_safe():
    assert (
        safe_run_id("manual__2026-01-02T03:04:05.6+00:00") == "manual__2026-01-02T03-04-05.6-00-00"
    )
    assert safe_run_id("../../etc") == "etc"
    assert safe_run_id("::") == "run"


def test_not_a_run_folder(tmp_path):
    with pytest.raises(ArtifactError, match=r"no config\.json"):
        open_run(tmp_path)


def test_an_unfinished_step_says_what_to_run(tmp_path):
    run = create_run(config(), tmp_path, "one")
    with pytest.raises(
        ArtifactError, match=r"no finished 'split_by_time': run `dssm split_by_time --run "
    ):
        run.need("split_by_time")


def test_a_damaged_manifest_says_what_to_remove(tmp_path):
    (tmp_path / "manifest.json").write_text('{"step":')
    with pytest.raises(ArtifactError, match="damaged: remove"):
        read_manifest(tmp_path)


def test_write_atomically_leaves_the_old_content_on_failure(tmp_path, monkeypatch):
    file = tmp_path / "a.json"
    write_atomically(file, b"old")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(ServiceError, match=r"cannot write .*a\.json: No space left"):
        write_atomically(file, b"new")
    assert file.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [file]


def test_runs_and_twins(tmp_path):
    one, two = (create_run(config(), tmp_path, name) for name in ("one", "two"))
    other_day = create_run(config(split={"test_day": "2024-03-06"}), tmp_path, "three")
    assert {run.id for run in find_runs(tmp_path)} == {"one", "two", "three"}
    assert find_twins(one) == [two]
    assert find_twins(other_day) == []


def test_a_run_of_another_version_is_left_out_with_a_warning(tmp_path, caplog):
    run = create_run(config(), tmp_path, "one")
    old = tmp_path / "small" / "2024-03-07" / "old"
    old.mkdir()
    (old / "config.json").write_text('{"name": "small"}')
    assert find_runs(tmp_path) == [run]
    assert "settings of another version" in caplog.text


def test_digest_ignores_the_order_of_keys():
    assert digest({"a": 1, "b": 2}) == digest(json.loads('{"b": 2, "a": 1}'))
