"""The Dag on real servers, checked from outside: REST, MLflow, and the processes of the machine."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event, Thread

import psutil
import pytest
import yaml
from filelock import FileLock
from mlflow import MlflowClient

from dssm_core.families import TOWERS
from dssm_core.operation import history
from dssm_core.registry.integrity import CONTENT_HASH_TAG
from dssm_core.registry.versions import RegisteredModel, fetch
from dssm_core.retrieval.bundle import content_hash
from dssm_core.runs.run import open_run, safe_run_id
from dssm_core.runs.table import STEPS
from tests.conftest import PATIENCE_S, TRAINING, complete, small_config, wait_until
from tests.e2e.airflow_runs import loggers

pytestmark = pytest.mark.e2e
DAG = TRAINING


def finish(airflow, run_id):
    """Wait until a run has ended; its review is answered, and nothing is promoted.

    Returns the state of the run, the states of its tasks, and the ends of the failed tasks' logs.
    """
    state = complete(airflow, run_id)
    tasks = airflow.tasks(DAG, run_id)
    logs = [
        airflow.log_text(DAG, run_id, name, task["try_number"])[-3000:]
        for name, task in tasks.items()
        if task["state"] == "failed"
    ]
    return state, {name: task["state"] for name, task in tasks.items()}, "\n".join(logs)


def folder(airflow, run_id):
    return airflow.xcom(DAG, run_id, "ingest_data")


def tracked(airflow, mlflow, run_id):
    """The MLflow run to which the button of the training task leads."""
    url = airflow.xcom(DAG, run_id, "train_towers", "mlflow_run")
    return mlflow.get_run(url.rstrip("/").rpartition("/")[2])


def test_airflow_reports_no_errors_or_warnings_about_the_dags(airflow):
    assert airflow.get("importErrors")["import_errors"] == []
    assert airflow.get("dagWarnings")["dag_warnings"] == []
    assert airflow.get("pools/gpu")["slots"] == 1


def test_a_run_registers_a_version(airflow, mlflow, site):
    run_id = airflow.trigger(DAG, {"config": "small", "epochs": 1})
    link = wait_until(
        lambda: airflow.xcom(DAG, run_id, "train_towers", "mlflow_run"),
        "the MLflow button has its address",
    )
    assert link.startswith(site.mlflow_url)
    state, states, logs = finish(airflow, run_id)
    assert state == "success", logs
    assert set(states.values()) == {"success"}
    run = tracked(airflow, mlflow, run_id)
    assert run.info.status == "FINISHED"
    version = mlflow.get_model_version_by_alias("dssm-small", "challenger")
    assert version.run_id == run.info.run_id
    links = airflow.get(f"dags/{DAG}/dagRuns/{run_id}/taskInstances/train_towers/links")[
        "extra_links"
    ]
    assert links == {"MLflow run": link}
    # No library, and nothing that is printed: only the project and Airflow's own task runner.
    ours = ("dssm_core.", "tasks.", "airflow.dag_processing.")
    found = loggers(airflow, DAG, run_id)
    assert "tasks.outcomes" in found
    assert {name for name in found if not name.startswith(ours)} == {"task"}


def test_the_form_refuses_invalid_values(airflow):
    for wrong in (
        {"sampler": "psychic"},
        {"epochs": 0},
        {"config": "../../etc/passwd"},
        {"test_day": "yesterday"},
        {"gate_floor": 2},
    ):
        with pytest.raises(RuntimeError, match="400"):
            airflow.trigger(DAG, {"config": "small"} | wrong)


def test_a_run_below_the_floor_registers_nothing_and_succeeds(airflow, mlflow):
    before = len(mlflow.search_model_versions("name='dssm-small'"))
    run_id = airflow.trigger(DAG, {"config": "small", "epochs": 1, "gate_floor": 0.99})
    state, states, logs = finish(airflow, run_id)
    assert state == "success", logs
    assert states["register_model"] == "skipped"
    # Only a setting of the gate differs from the previous run: no step is trained again.
    assert airflow.xcom(DAG, run_id, "train_towers", "done")["reused_from"]
    assert len(mlflow.search_model_versions("name='dssm-small'")) == before
    run = tracked(airflow, mlflow, run_id)
    assert run.info.status == "FINISHED"
    assert any("gate" in key for key in run.data.tags), run.data.tags
    assert any("0.99" in str(value) for key, value in run.data.tags.items() if "gate" in key), (
        run.data.tags
    )


def test_bad_data_fails_without_a_retry_and_leaves_its_report(airflow, mlflow):
    run_id = airflow.trigger(DAG, {"config": "broken"})
    state, states, logs = finish(airflow, run_id)
    assert state == "failed"
    assert states["validate_data"] == "failed"
    assert airflow.tasks(DAG, run_id)["validate_data"]["try_number"] == 1
    assert "DataError" in logs
    assert airflow.get(f"dags/{DAG}/dagRuns/{run_id}")["note"].startswith("validate_data failed: ")
    (run,) = mlflow.search_runs([mlflow.get_experiment_by_name("broken").experiment_id])
    assert run.info.status == "FAILED"
    files = {file.path for file in mlflow.list_artifacts(run.info.run_id)}
    assert {"data_checks.html", "data_docs"} <= files


class Reader(Thread):
    """Loads each version of a model as soon as MLflow lists it.

    `whole` says for each version whether the loaded bundle has the hash of the version's tag.
    """

    def __init__(self, uri, name, folder):
        super().__init__(daemon=True)
        self.store = RegisteredModel(name, uri, MlflowClient(uri, uri))
        self.folder = folder
        self.whole = {}
        self.stop = Event()

    def run(self):
        while not self.stop.wait(0.1):
            for version in self.store.client.search_model_versions(f"name = '{self.store.name}'"):
                if version.version not in self.whole:
                    self.load(version)

    def load(self, version):
        folder = self.folder / str(version.version)
        folder.mkdir(parents=True)
        bundle = fetch(self.store, str(version.version), folder).folder
        self.whole[version.version] = content_hash(bundle) == version.tags[CONTENT_HASH_TAG]


def kill(airflow, run_id, step, begun, lock=None):
    """Send SIGKILL to the process of a task as soon as `begun` says that it writes.

    lock: what the task waits for, released once its process is known: a step may take less time
    than finding its process.
    """
    pid = wait_until(
        lambda: airflow.tasks(DAG, run_id).get(step, {}).get("pid"), f"{step} has a process"
    )
    if lock is not None:
        lock.release()
    deadline = time.monotonic() + PATIENCE_S
    while not begun():
        assert time.monotonic() < deadline, f"{step} wrote nothing"
        time.sleep(0.002)
    psutil.Process(pid).kill()


def test_a_run_that_is_killed_in_each_step_registers_the_same_version(
    airflow, mlflow, site, tmp_path
):
    """Every task is killed in its first attempt, when its folder is half written.

    A reader loads the versions during the run.
    """
    settings = {"epochs": 12, "seed": 5}
    runs = site.state.parent / "runs"
    reader = Reader(site.mlflow_url, "dssm-killed", tmp_path / "read")
    reader.start()
    run_id = airflow.trigger(DAG, {"config": "killed"} | settings)
    root = runs / "killed" / "2024-03-07" / safe_run_id(run_id)
    root.mkdir(parents=True, exist_ok=True)
    locks = {step: FileLock(root / f".{step}.lock") for step in list(STEPS)[1:]}
    for lock in locks.values():
        lock.acquire()
    for step in STEPS:
        what = f".{step}.part" + ("/*.pt" if step == "train_towers" else "")
        kill(airflow, run_id, step, lambda what=what: any(root.glob(what)), locks.get(step))
    with ThreadPoolExecutor() as people:
        people.submit(complete, airflow, run_id, "Promote")
        kill(airflow, run_id, "promote", (runs / "history" / "dssm-killed.lock").exists)
    state, states, logs = finish(airflow, run_id)
    reader.stop.set()
    reader.join()
    assert (state, set(states.values())) == ("success", {"success"}), logs
    assert {
        name: task["try_number"]
        for name, task in airflow.tasks(DAG, run_id).items()
        if name != "review"
    } == dict.fromkeys([*STEPS, "promote"], 2)
    undisturbed = run_without_airflow(site, tmp_path, settings)
    disturbed = folder(airflow, run_id)
    assert gate_metrics(disturbed) == gate_metrics(undisturbed)
    assert registered(disturbed) == registered(undisturbed)
    assert not [*Path(disturbed).glob(".*.part"), *Path(disturbed).glob(".scratch-*")]
    (version,) = mlflow.search_model_versions("name='dssm-killed'")
    assert reader.whole == {version.version: True}
    assert mlflow.get_registered_model("dssm-killed").aliases == {
        "challenger": version.version,
        "champion": version.version,
    }
    assert [decision.action for decision in history.history("dssm-killed", runs)] == ["promote"]


def registered(run):
    info = open_run(run).need("register_model").info
    return info["version"], info["content_hash"]


def run_without_airflow(site, tmp_path, settings):
    """Run the same settings in one process and in another folder of runs, where no step can be
    reused. Returns the folder of the run.
    """
    config = tmp_path / "killed.yaml"
    config.write_text(yaml.safe_dump(small_config(name="killed")))
    command = [str(Path(sys.executable).with_name("dssm")), "run", str(config), "--json"]
    command += [f"--set=train.epochs={settings['epochs']}", f"--set=seed={settings['seed']}"]
    env = os.environ | {"MLFLOW_TRACKING_URI": site.mlflow_url, "DSSM_RUNS": str(tmp_path / "runs")}
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])["run"]


def gate_metrics(run):
    """The gate's metrics without the champion's, which only the second of two runs has."""
    metrics = without_seconds(open_run(run).need("recall_gate").info["metrics"])
    of_champion = ("champion", "against_champion")
    return {name: value for name, value in metrics.items() if name not in of_champion}


def without_seconds(metrics):
    """Metrics without the times of the baselines, which differ from run to run."""
    if not isinstance(metrics, dict):
        return metrics
    return {key: without_seconds(value) for key, value in metrics.items() if key != "seconds"}


def test_a_run_that_starts_while_another_trains_waits_and_reuses_nothing_of_it(airflow, mlflow):
    first = airflow.trigger(DAG, {"config": "small", "epochs": 20, "seed": 7})
    run = Path(wait_until(lambda: folder(airflow, first), "the run has its folder"))
    wait_until(lambda: any(run.glob(".train_towers.part/*.pt")), "a checkpoint is written")
    second = airflow.trigger(DAG, {"config": "small", "epochs": 1, "seed": 8})
    ended = [finish(airflow, run_id) for run_id in (first, second)]
    assert [state for state, _, _ in ended] == ["success", "success"], ended
    trained, waited = (airflow.tasks(DAG, run_id)["train_towers"] for run_id in (first, second))
    assert trained["end_date"] <= waited["start_date"]  # one slot in the pool
    assert trained["try_number"] == waited["try_number"] == 1
    assert folder(airflow, first) != folder(airflow, second)
    opened = [tracked(airflow, mlflow, run_id) for run_id in (first, second)]
    assert [run.data.params["train.epochs"] for run in opened] == ["20", "1"]
    versions = [registered(folder(airflow, run_id))[0] for run_id in (first, second)]
    assert (
        versions[0]
        != versions[1]
        == mlflow.get_model_version_by_alias("dssm-small", "challenger").version
    )


@pytest.mark.soak
def test_every_tower_of_the_form_is_trained_and_evaluated(airflow):
    runs = {
        kind: airflow.trigger(DAG, {"config": "small", "epochs": 1, "tower": kind})
        for kind in sorted(TOWERS)
    }
    ended = {kind: finish(airflow, run_id) for kind, run_id in runs.items()}
    assert {kind: state for kind, (state, _, _) in ended.items()} == dict.fromkeys(
        runs, "success"
    ), [logs for _, _, logs in ended.values()]
    assert all(states["recall_gate"] == "success" for _, states, _ in ended.values())
