"""A version whose files were changed after it was registered is refused wherever it is used."""

import shutil
from pathlib import Path

import pandas as pd
import pytest

from dssm_core.errors import ArtifactError
from dssm_core.gate import champion as champions
from dssm_core.operation import promotion
from dssm_core.operation.publish import publish_registered
from dssm_core.operation.refresh import refresh_registered
from dssm_core.registry import check, integrity
from dssm_core.registry.check import check_version
from dssm_core.registry.integrity import ChangedVersion, check_version_files, part_hashes
from dssm_core.registry.registration import register_model
from dssm_core.registry.versions import fetch, open_model
from dssm_core.retrieval.bundle import content_hash
from dssm_core.tracking.client import default_server
from tests.unit.conftest import PASSED, fabricated, finish
from tests.unit.operation.test_promotion import at

TAMPERED = [
    "artifacts/bundle/item_embeddings.npy",
    "artifacts/bundle/config.json",
    "code/dssm_core/registry/retriever.py",
    "code/torch.py",  # would be imported instead of torch
    "retriever.py",
    "MLmodel",
    "requirements.txt",
    "conda.yaml",
    "python_env.yaml",
]
IN_MODEL = TAMPERED[:3]  # what a server without MLflow can compare


@pytest.fixture(scope="module")
def registered(tmp_path_factory):
    """A run that is version 1 of its model."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        run = fabricated(tmp_path_factory.mktemp("registered"))
        finish(run, "recall_gate", info=PASSED)
        run.step("x").mkdir()
        assert register_model(run, run.step("x")).info["version"] == "1"
    return run


@pytest.fixture
def run(registered, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return registered


@pytest.fixture
def store(run):
    return open_model(run.config.model_name, run.runs)


@pytest.fixture
def champion(store):
    store.point("champion", "1")
    yield
    store.client.delete_registered_model_alias(store.name, "champion")


@pytest.fixture
def files(run, tmp_path):
    """The version's folder among MLflow's artifacts, put back afterwards."""
    (folder,) = run.runs.glob("mlartifacts/models/*/artifacts")
    shutil.copytree(folder, tmp_path / "kept")
    yield folder
    shutil.rmtree(folder)
    shutil.copytree(tmp_path / "kept", folder)


def tamper(folder, name, ran):
    """Change one byte, or plant a line that creates the file `ran`."""
    file = folder / name
    if file.suffix == ".py":
        before = file.read_text() if file.exists() else ""
        file.write_text(before + f"\nimport pathlib; pathlib.Path({str(ran)!r}).touch()\n")
    elif file.suffix == ".npy":
        content = bytearray(file.read_bytes())
        content[-1] ^= 1
        file.write_bytes(content)
    else:
        file.write_bytes(file.read_bytes() + b"\n")


def hashes_of(folder, name):
    part = "artifacts/bundle" if name.startswith("artifacts") else "code/dssm_core"
    return content_hash(folder / part)


@pytest.mark.parametrize("name", TAMPERED)
def test_every_file_that_changes_an_answer_or_runs_is_compared(store, files, tmp_path, name):
    before = store.tags("1")
    tamper(files, name, tmp_path / "ran")
    with pytest.raises(ChangedVersion) as refused:
        fetch(store, "1", tmp_path / "copy")
    tag = {"artif": "dssm.content_hash", "code/d": "dssm.code_hash"}
    tag = next((tag[key] for key in tag if name.startswith(key)), "dssm.files_hash")
    now = part_hashes(files)[tag]
    assert now != before[tag]
    assert f"{now}, but {before[tag]} was recorded ({tag})" in str(refused.value)
    assert "version 1 of 'dssm-made' was changed after it was registered" in str(refused.value)
    assert "`dssm rollback`, or register its run again" in str(refused.value)


def test_the_hashes_are_those_of_what_was_registered(run, store, tmp_path):
    tags, package = store.tags("1"), Path(integrity.__file__).parents[1]
    shutil.copytree(package, tmp_path / "code", ignore=shutil.ignore_patterns("__pycache__"))
    assert tags["dssm.content_hash"] == content_hash(run.step("x") / "bundle")
    assert tags["dssm.code_hash"] == content_hash(tmp_path / "code")
    fetched = fetch(store, "1", tmp_path / "copy")
    assert fetched.folder == fetched.model / "artifacts" / "bundle"
    (fetched.model / "registered_model_meta").unlink()  # MLflow writes it at each download
    assert tags["dssm.files_hash"] == content_hash(fetched.model)


@pytest.mark.parametrize("name", ["artifacts/bundle/item_embeddings.npy", "retriever.py"])
def test_a_changed_version_is_not_promoted_and_its_code_does_not_run(run, files, tmp_path, name):
    tamper(files, name, tmp_path / "ran")
    with pytest.raises(ChangedVersion, match=r"the hash of .* is \w{64}, but \w{64} was recorded"):
        promotion.decide(
            "promote",
            run.config.model_name,
            run.runs,
            at(0),
            "a test",
            "more recall",
            check=lambda store, version: check_version(store.name, version, run.runs),
        )
    assert not (tmp_path / "ran").exists()


def test_what_is_checked_before_a_promotion_is_the_compared_copy(run, store, monkeypatch):
    asked = []

    def run_copy(command, **_):
        model = Path(command[command.index("-m", 4) + 1])
        asked.append(part_hashes(model))
        raise check.subprocess.TimeoutExpired("mlflow", 1)

    monkeypatch.setattr(check.subprocess, "run", run_copy)
    with pytest.raises(check.ServiceError, match="was not loaded within 600 s"):
        check_version(store.name, "1", run.runs)
    assert [hashes["dssm.files_hash"] for hashes in asked] == [store.tags("1")["dssm.files_hash"]]


@pytest.mark.usefixtures("champion")
@pytest.mark.parametrize("name", ["artifacts/bundle/item_embeddings.npy", "retriever.py"])
def test_a_changed_version_is_not_published(store, files, tmp_path, name):
    tamper(files, name, tmp_path / "ran")
    with pytest.raises(ChangedVersion):
        publish_registered(store, None, str(tmp_path / "out"))
    assert not (tmp_path / "out").exists()


@pytest.mark.usefixtures("champion")
@pytest.mark.parametrize("name", ["artifacts/bundle/item_embeddings.npy", "retriever.py"])
def test_a_changed_version_is_not_refreshed(run, store, files, tmp_path, name):
    tamper(files, name, tmp_path / "ran")
    with pytest.raises(ChangedVersion):
        refresh_registered(store, None, run.config, 0, tmp_path / "refreshed")
    assert not (tmp_path / "refreshed").exists()


@pytest.mark.usefixtures("champion")
def test_a_changed_champion_is_not_measured_and_the_gate_says_why(run, files, tmp_path):
    tamper(files, "artifacts/bundle/item_embeddings.npy", tmp_path / "ran")
    measured = champions.measure_champion(run, None)
    assert measured.compared.version == "1"
    assert measured.compared.recall is None
    assert "version 1 of 'dssm-made' was changed after it was registered" in measured.compared.note


@pytest.mark.parametrize("name", IN_MODEL)
def test_a_changed_version_is_not_served(run, store, files, tmp_path, name):
    import mlflow

    mlflow.set_tracking_uri(store.uri)
    tamper(files, name, tmp_path / "ran")
    with pytest.raises(ArtifactError, match=r"the hash of .* is \w{64}, but \w{64} was recorded"):
        mlflow.pyfunc.load_model("models:/dssm-made/1")


def test_what_mlflow_and_python_write_beside_a_version_changes_nothing(run, store, files, tmp_path):
    import mlflow

    mlflow.set_tracking_uri(store.uri)
    (files / "code/dssm_core/__pycache__").mkdir()
    (files / "code/dssm_core/__pycache__/columns.cpython-311.pyc").write_bytes(b"code")
    answer = mlflow.pyfunc.load_model("models:/dssm-made/1").predict(pd.DataFrame({"user_id": [3]}))
    assert answer.item_ids[0][0] == 30
    fetched = fetch(store, "1", tmp_path / "copy")
    assert not list(fetched.model.rglob("__pycache__"))  # nothing that was not compared is run


def test_versions_that_older_code_registered_are_compared_by_their_bundle(files, tmp_path):
    tags = {"dssm.content_hash": content_hash(files / "artifacts/bundle")}
    tamper(files, "retriever.py", tmp_path / "ran")
    check_version_files(files, "1", "version 1", tags)
    tamper(files, "artifacts/bundle/item_embeddings.npy", tmp_path / "ran")
    with pytest.raises(ChangedVersion):
        check_version_files(files, "1", "version 1", tags)


def test_a_changed_version_is_registered_again_as_a_new_one(run, files, store, tmp_path):
    assert register_model(run, run.step("x")).info["version"] == "1"
    tamper(files, "artifacts/bundle/item_embeddings.npy", tmp_path / "ran")
    assert register_model(run, run.step("x")).info["version"] == "2"
    assert register_model(run, run.step("x")).info["version"] == "2"
    fetch(store, "2", tmp_path / "copy")


def test_a_version_is_fetched_from_its_server_whatever_the_process_used_before(store, tmp_path):
    with default_server(f"sqlite:///{tmp_path}/other.db"):
        pass  # MLflow's module keeps this address
    assert fetch(store, "1", tmp_path / "copy").version == "1"
