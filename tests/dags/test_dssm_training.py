"""The Dag file: it parses cleanly and lightly, its graph is the pipeline, its form offers what the
core has.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from datetime import timedelta

import pytest

from dssm_core.families import BASELINES, LOSSES, SAMPLERS, TOWERS
from dssm_core.runs.table import STEPS
from tasks.form import OPEN
from tests.conftest import REPO

PARSE = """
import json, sys, warnings
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    from airflow.dag_processing.dagbag import DagBag
    bag = DagBag("dags")
    ours = [str(w.message) for w in caught if "/dags/" in w.filename or "/tasks/" in w.filename]
from airflow.sdk import DAG
from airflow.serialization.serialized_objects import DagSerialization
dag = bag.dags["dssm_training"]
# What the scheduler reads.
stored = DagSerialization.from_dict(json.loads(json.dumps(DagSerialization.to_dict(dag))))
print(json.dumps({
    "errors": bag.import_errors,
    "warnings": ours,
    "modules": sorted({name.partition(".")[0] for name in sys.modules}),
    "stored": {name: sorted(t.downstream_task_ids) for name, t in stored.task_dict.items()},
    "tasks": {t.task_id: {
        "next": sorted(t.downstream_task_ids), "pool": t.pool, "retries": t.retries,
        "doc": t.doc_md, "queue": t.queue, "executor": t.executor,
        "executor_config": t.executor_config,
        "timeout_s": (t.execution_timeout or t.response_timeout).total_seconds(),
        "links": [link.name for link in t.operator_extra_links],
        "policy": [
            [r.action.value, sorted(e if isinstance(e, str) else e.__name__ for e in r.exception)]
            for r in t.retry_policy.rules
        ],
    } for t in dag.topological_sort()},
    "defaults": {name: dag.params.get_param(name).value for name in dag.params},
    "params": {name: dag.params.get_param(name).schema for name in dag.params},
    "timetable": type(stored.timetable).__name__,
    "window": sorted(stored.timetable.default_partition_mapper.to_upstream("2017-10-07")),
    "windows": list(stored.timetable.default_partition_mapper.to_downstream("2017-10-07")),
    "forms": {
        name: {field: each.params.get_param(field).schema for field in each.params}
        for name, each in bag.dags.items()
    },
    "tags": sorted(dag.tags), "doc": dag.doc_md,
}, default=str))
"""


def parse(tmp_path_factory: pytest.TempPathFactory, **env: str) -> dict:
    home = tmp_path_factory.mktemp("airflow")
    settings = {
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "false",
        "PYTHONPATH": str(REPO),
    }
    settings |= {"AIRFLOW__CORE__PLUGINS_FOLDER": str(REPO / "plugins")}
    done = subprocess.run(
        [sys.executable, "-c", PARSE],
        cwd=REPO,
        env=os.environ | settings | env,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def parsed(tmp_path_factory):
    return parse(tmp_path_factory)


def test_parses_without_errors_or_warnings(parsed):
    assert parsed["errors"] == {}
    assert parsed["warnings"] == []


def test_the_scheduler_reads_the_same_graph(parsed):
    assert parsed["stored"] == {name: task["next"] for name, task in parsed["tasks"].items()}


@pytest.mark.parametrize(
    "module", ["torch", "pandas", "mlflow", "great_expectations", "duckdb", "faiss", "numpy"]
)
def test_parsing_imports_nothing_heavy(parsed, module):
    assert module not in parsed["modules"]


def test_graph_is_the_pipeline(parsed):
    names = [*STEPS, "review", "promote"]
    assert list(parsed["tasks"]) == names
    found = [parsed["tasks"][name]["next"] for name in names]
    assert found == [[after] for after in [*STEPS][1:]] + [["promote", "review"], ["promote"], []]


def test_training_has_its_pool(parsed):
    pools = {name: task["pool"] for name, task in parsed["tasks"].items()}
    assert pools.pop("train_towers") == "gpu"
    assert set(pools.values()) == {"default_pool"}


def test_every_task_with_an_mlflow_run_has_its_buttons(parsed):
    links = {name: task["links"] for name, task in parsed["tasks"].items()}
    without = ("ingest_data", "review", "promote")
    assert [links.pop(name) for name in without] == [[], [], []]
    assert links.pop("validate_data") == ["MLflow run", "Data checks"]
    assert links.pop("recall_gate") == ["MLflow run", "Report"]
    assert all(buttons == ["MLflow run"] for buttons in links.values())


def test_every_task_is_retried_but_not_for_bad_data(parsed):
    for task in parsed["tasks"].values():
        assert task["retries"] == 2
        assert task["policy"] == [["fail", ["ConfigError", "ConflictError", "DataError"]]]
        assert 0 < task["timeout_s"] <= timedelta(days=7).total_seconds()
    assert all(task["doc"] for name, task in parsed["tasks"].items() if name != "review")


def test_form_offers_the_baselines(parsed):
    schema = parsed["params"]["baselines"]
    assert schema["items"]["enum"] == schema["examples"] == sorted(BASELINES)
    assert schema["values_display"]["hot"].startswith("hot: ")


@pytest.mark.parametrize(
    ("field", "family"), [("tower", TOWERS), ("loss", LOSSES), ("sampler", SAMPLERS)]
)
def test_form_offers_the_families(parsed, field, family):
    assert parsed["params"][field]["enum"] == [None, *sorted(family)]
    labels = parsed["params"][field]["values_display"]
    assert all(labels[name].startswith(f"{name}: ") for name in family)


def test_form_offers_the_configs(parsed):
    assert parsed["params"]["config"]["enum"] == sorted(
        file.stem for file in (REPO / "configs").glob("*.yaml")
    )


def test_forms_suit_airflows_page(parsed):
    """Each Dag: the first section is the one that Airflow opens, each field is explained, without
    inline code, whose frame hides the lines beside it, a field that may stay empty is nullable, and
    no number has limits that the page would put in its place.
    """
    assert len(parsed["forms"]) == 7
    for form in parsed["forms"].values():
        assert next(iter(form.values()))["section"] == OPEN
        for schema in form.values():
            assert schema["title"]
            assert schema["section"]
            assert "`" not in schema["description_md"]
            assert not {"minimum", "maximum"} & set(schema)
            assert schema["type"] != "boolean"


def test_a_window_of_landed_days_starts_a_run(parsed, tmp_path_factory):
    assert parsed["timetable"].startswith("PartitionedAssetTimetable")
    assert parsed["window"] == [f"2017-10-0{day}" for day in range(1, 8)]
    assert parsed["windows"] == [f"2017-10-{day:02}" for day in range(7, 14)]
    scheduled = parse(tmp_path_factory, DSSM_CONFIG="globo", DSSM_DATA_PATH="/data/globo")
    assert scheduled["defaults"]["config"] == "globo", "such a run has no form to fill in"
    assert scheduled["defaults"]["data"] == "/data/globo"
    assert (parsed["defaults"]["config"], parsed["defaults"]["data"]) == ("demo", None)


def test_trainings_may_have_a_queue_and_an_executor_of_their_own(parsed, tmp_path_factory):
    assert {(task["queue"], task["executor"]) for task in parsed["tasks"].values()} == {
        ("default", None)
    }
    placed = parse(
        tmp_path_factory, DSSM_TRAIN_QUEUE="gpu-workers", DSSM_TRAIN_EXECUTOR="LocalExecutor"
    )
    where = {name: (task["queue"], task["executor"]) for name, task in placed["tasks"].items()}
    assert where.pop("train_towers") == ("gpu-workers", "LocalExecutor")
    assert set(where.values()) == {("default", None)}


def test_no_python_in_the_mlflow_folder():
    assert not list((REPO / "mlflow").rglob("*.py")), (
        "a module there would shadow the package mlflow"
    )
