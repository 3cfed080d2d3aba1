"""The tasks of the Dag dssm_sweep, as Airflow calls them: a trial counts where it has ended in this
sweep, and nowhere else.
"""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import yaml

from dssm_core.errors import ConfigError, DataError
from dssm_core.runs.manifest import Manifest
from dssm_core.runs.run import find_runs, open_run
from dssm_core.tuning import sweep_run
from tasks import sweep
from tests.conftest import small_config

FORM = dict.fromkeys(sweep.FORM) | {
    "config": "small",
    "settings": [],
    "search": "grid",
    "trials": 12,
}


@pytest.fixture
def called(tmp_path, monkeypatch):
    """A function (ended runs, form fields) that sets what a task finds; MLflow is asked nothing."""
    import airflow.sdk

    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "small.yaml").write_text(yaml.safe_dump(small_config()))
    for name in ("configs", "runs"):
        monkeypatch.setenv(f"DSSM_{name.upper()}", str(tmp_path / name))
    monkeypatch.setattr(sweep_run, "open_sweep", lambda *told: "parent")
    monkeypatch.setattr(sweep_run, "close_sweep", lambda *told: None)

    def context(ended=(), **fields):
        def pulled(task_ids, map_indexes):
            return [run if run in ended else None for run in made(map_indexes)]

        found = {
            "params": FORM | fields,
            "dag_run": SimpleNamespace(dag_id="dssm_sweep", run_id="monday", conf={}),
            "ti": None,
        }
        found["ti"] = SimpleNamespace(xcom_pull=pulled)
        monkeypatch.setattr(airflow.sdk, "get_current_context", lambda: found)

    def made(indexes):
        return [str(run.root) for run, _ in zip(find_runs(tmp_path / "runs"), indexes, strict=True)]

    return context


def judge(trial, recall):
    run = open_run(trial["run"])
    served = {"recall@200": recall, "recall@200_low": recall, "recall@200_high": recall}
    for name, info in (
        ("recall_gate", {"passed": True, "reasons": [], "metrics": {"served": served}}),
        ("train_towers", {}),
        ("build_index", {}),
    ):
        run.step(name).mkdir()
        manifest = Manifest(step=name, key="", files={}, rows={}, info=info, seconds=1.0, seed=0)
        (run.step(name) / "manifest.json").write_text(manifest.model_dump_json())


def test_a_trial_that_fails_does_not_win_by_what_an_earlier_sweep_left(called):
    axes = {"axes": ["loss=bce,bpr"]}
    called(**axes)
    planned = sweep.plan_trials()
    for trial, recall in zip(planned["trials"], (0.75, 0.25), strict=True):
        judge(trial, recall)
    runs = [trial["run"] for trial in planned["trials"]]
    called(ended=runs, **axes)
    first = sweep.compare_trials(planned)
    assert first["conf"]["settings"] == ['loss.kind="bce"']
    called(ended=runs[1:], **axes)
    second = sweep.compare_trials(planned)
    assert second["conf"]["settings"] == ['loss.kind="bpr"']
    assert first["run_id"] != second["run_id"]  # another winner is another training
    called(ended=runs[1:], **axes)
    assert sweep.compare_trials(planned) == second
    called(**axes)
    with pytest.raises(DataError, match="all trials failed"):
        sweep.compare_trials(planned)


def test_a_sweep_without_a_plan_says_where_to_look(called):
    called(axes=["loss=bce"])
    with pytest.raises(DataError, match="the log of plan_trials says why"):
        sweep.compare_trials(None)


def test_a_first_trial_whose_days_are_not_there_sinks_nobody(called, monkeypatch, caplog):
    """The shared steps run with the first trial's settings; the second goes on with its own."""
    called(axes=["split.train_days=30,6"])
    planned = sweep.plan_trials()

    def run_step(run, name):
        if run.config.split.train_days == 29:
            raise DataError("2024-02-06 has no rows")

    monkeypatch.setattr("tasks.steps.run_step", lambda run, name: run_step(open_run(run), name))
    assert sweep.share_data(planned) == planned["trials"]
    assert "because split.train_days=30 fails: 2024-02-06 has no rows" in caplog.text
    with pytest.raises(DataError):
        sweep.begin_trial(planned["trials"][0])
    assert sweep.begin_trial(planned["trials"][1]) == planned["trials"][1]["run"]


def test_axes_are_not_a_way_around_the_datas_roots(called, monkeypatch):
    monkeypatch.setenv("DSSM_DATA_ROOTS", "/data")
    called(axes=["data.source.path=/etc,/root"])
    with pytest.raises(ConfigError, match=r"\$DSSM_DATA_ROOTS limits"):
        sweep.plan_trials()
