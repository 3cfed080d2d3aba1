"""The Dag on real servers, seen from outside: REST, MLflow, and the processes of the machine."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import yaml
from mlflow import MlflowClient

from dssm_core.towers import TOWERS
from tests.conftest import small_config, wait_until

pytestmark = pytest.mark.e2e
DAG = "dssm_training"


@pytest.fixture(scope="module")
def airflow(site):
    client = site.airflow()
    wait_until(lambda: client.knows(DAG, "small"), "the Dag is parsed")
    return client


@pytest.fixture(scope="module")
def mlflow(site):
    return MlflowClient(tracking_uri=site.mlflow_url)


def finish(airflow, run_id):
    """A review that waits is answered: nothing is promoted."""
    wait_until(lambda: airflow.settled(DAG, run_id), f"{run_id} ends or waits for its review")
    if airflow.state(DAG, run_id) == "running":
        time.sleep(2)  # an answer within a fraction of a second can fail the task
        airflow.answer(DAG, run_id, "Keep as challenger", "a test")
        wait_until(lambda: airflow.state(DAG, run_id) in ("success", "failed"), f"{run_id} ends")
    tasks = airflow.tasks(DAG, run_id)
    logs = [airflow.log_text(DAG, run_id, name, task["try_number"])[-3000:] for name, task in tasks.items() if task["state"] == "failed"]
    return airflow.state(DAG, run_id), {name: task["state"] for name, task in tasks.items()}, "\n".join(logs)


def folder(airflow, run_id):
    return airflow.xcom(DAG, run_id, "ingest_data")


def tracked(airflow, mlflow, run_id):
    """The MLflow run behind the button of the training task."""
    return mlflow.get_run(airflow.xcom(DAG, run_id, "train_towers", "mlflow_run").rstrip("/").rpartition("/")[2])


def test_airflow_finds_no_fault_with_our_files(airflow):
    assert airflow.get("importErrors")["import_errors"] == []
    assert airflow.get("dagWarnings")["dag_warnings"] == []
    assert airflow.get("pools/gpu")["slots"] == 1


def test_a_run_ends_as_a_registered_version(airflow, mlflow, site):
    run_id = airflow.trigger(DAG, {"config": "small", "epochs": 1})
    link = wait_until(lambda: airflow.xcom(DAG, run_id, "train_towers", "mlflow_run"), "the MLflow button has its address")
    assert link.startswith(site.mlflow_url)
    state, states, logs = finish(airflow, run_id)
    assert state == "success", logs
    assert set(states.values()) == {"success"}
    run = tracked(airflow, mlflow, run_id)
    assert run.info.status == "FINISHED"
    version = mlflow.get_model_version_by_alias("dssm-small", "challenger")
    assert version.run_id == run.info.run_id
    links = airflow.get(f"dags/{DAG}/dagRuns/{run_id}/taskInstances/train_towers/links")["extra_links"]
    assert links == {"MLflow run": link}


def test_values_outside_the_form_are_refused(airflow):
    for wrong in ({"sampler": "psychic"}, {"epochs": 0}, {"config": "../../etc/passwd"}, {"test_day": "yesterday"}, {"gate_floor": 2}):
        with pytest.raises(RuntimeError, match="400"):
            airflow.trigger(DAG, {"config": "small"} | wrong)


def test_below_the_gate_nothing_is_registered_and_nothing_fails(airflow, mlflow):
    before = len(mlflow.search_model_versions("name='dssm-small'"))
    run_id = airflow.trigger(DAG, {"config": "small", "epochs": 1, "gate_floor": 0.99})
    state, states, logs = finish(airflow, run_id)
    assert state == "success", logs
    assert states["register_model"] == "skipped"
    # Only the gate's setting differs from the run before: nothing is trained again.
    assert airflow.xcom(DAG, run_id, "train_towers", "done")["reused_from"]
    assert len(mlflow.search_model_versions("name='dssm-small'")) == before
    run = tracked(airflow, mlflow, run_id)
    assert run.info.status == "FINISHED"
    assert any("gate" in key for key in run.data.tags), run.data.tags
    assert any("0.99" in str(value) for key, value in run.data.tags.items() if "gate" in key), run.data.tags


def test_bad_data_fails_at_once_and_leaves_its_report(airflow, mlflow):
    run_id = airflow.trigger(DAG, {"config": "broken"})
    state, states, logs = finish(airflow, run_id)
    assert state == "failed"
    assert states["validate_data"] == "failed"
    assert airflow.tasks(DAG, run_id)["validate_data"]["try_number"] == 1
    assert "DataError" in logs
    experiments = [experiment.experiment_id for experiment in mlflow.search_experiments()]
    (run,) = [run for run in mlflow.search_runs(experiments) if run.info.run_name and run.info.status == "FAILED"]
    assert any(file.path.startswith("data_docs") for file in mlflow.list_artifacts(run.info.run_id))


def test_a_killed_training_is_retried_to_the_same_result(airflow, site, tmp_path):
    settings = {"epochs": 12, "seed": 5}
    run_id = airflow.trigger(DAG, {"config": "small"} | settings)
    part = wait_until(lambda: folder(airflow, run_id), "the run has its folder") + "/.train_towers.part"
    wait_until(lambda: has_checkpoint(part), "a checkpoint is written")
    victim = psutil.Process(airflow.tasks(DAG, run_id)["train_towers"]["pid"])
    victim.kill()
    state, _, logs = finish(airflow, run_id)
    assert state == "success", logs
    assert airflow.tasks(DAG, run_id)["train_towers"]["try_number"] == 2
    undisturbed = run_without_airflow(site, tmp_path, settings)
    assert gate_metrics(folder(airflow, run_id)) == gate_metrics(undisturbed)


def has_checkpoint(part):
    return os.path.isdir(part) and any(name.endswith(".pt") for name in os.listdir(part))


def run_without_airflow(site, tmp_path, settings):
    """The same settings in one process, in another runs folder so that nothing can be reused."""
    config = tmp_path / "small.yaml"
    config.write_text(yaml.safe_dump(small_config()))
    command = [str(Path(sys.executable).with_name("dssm")), "run", str(config), "--json"]
    command += [f"--set=train.epochs={settings['epochs']}", f"--set=seed={settings['seed']}"]
    env = os.environ | {"MLFLOW_TRACKING_URI": site.mlflow_url, "DSSM_RUNS": str(tmp_path / "runs")}
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])["run"]


def gate_metrics(run):
    from dssm_core.artifacts import open_run

    return without_seconds(open_run(run).need("recall_gate").info["metrics"])


def without_seconds(found):
    """Metrics less what the baselines took, which is the machine's affair."""
    return {key: without_seconds(value) for key, value in found.items() if key != "seconds"} if isinstance(found, dict) else found


def test_every_tower_of_the_form_is_trained_and_judged(airflow):
    """The last test: one of its runs may equal one of those above, and an equal bundle is registered once."""
    runs = {kind: airflow.trigger(DAG, {"config": "small", "epochs": 1, "tower": kind}) for kind in sorted(TOWERS)}
    ended = {kind: finish(airflow, run_id) for kind, run_id in runs.items()}
    assert {kind: state for kind, (state, _, _) in ended.items()} == dict.fromkeys(runs, "success"), [logs for _, _, logs in ended.values()]
    assert all(states["recall_gate"] == "success" for _, states, _ in ended.values())
