"""The gate's verdict in the MLflow run."""

import json

import pytest

from dssm_core.report.verdict import log_verdict
from dssm_core.runs.gate_report import GateReport
from dssm_core.tracking.client import connect
from dssm_core.tracking.runs import open_mlflow_run
from dssm_core.tuning.sweep_run import open_sweep
from tests.unit.conftest import REJECTED

pytestmark = pytest.mark.usefixtures("local_mlflow")


def client(run):
    return connect(run.runs)


def test_a_refusal_finishes_the_run_with_its_reasons(fabricate, tmp_path):
    run = fabricate()
    for name in ("gate.json", "recall_curve.png"):
        (tmp_path / name).write_text("x")
    (tmp_path / "report.html").write_text("page")
    log_verdict(run, tmp_path, GateReport.model_validate(REJECTED))
    found = client(run).get_run(json.loads((run.root / "mlflow.json").read_text())["run_id"])
    assert found.info.status == "FINISHED"
    assert (found.data.tags["gate"], found.data.tags["gate.reasons"]) == ("failed", "bad")
    assert found.data.metrics["headline/recall_at_200"] == 0.1
    assert "report.html" in [file.path for file in client(run).list_artifacts(found.info.run_id)]


@pytest.mark.parametrize(("trial", "status"), [(True, "FINISHED"), (False, "RUNNING")])
def test_a_trial_ends_with_its_gate_other_runs_go_on(fabricate, tmp_path, trial, status):
    run = fabricate()
    if trial:
        open_sweep([run], ["loss=bce"], "a sweep")
    (tmp_path / "gate.json").write_text("{}")
    run_id = open_mlflow_run(run).run_id
    log_verdict(run, tmp_path, GateReport.model_validate(REJECTED | {"passed": True}))
    assert client(run).get_run(run_id).info.status == status
