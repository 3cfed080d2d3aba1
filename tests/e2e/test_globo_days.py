"""Nine days of a real log land one by one on real servers, and three windows train, each on its own
days. Repeats the first test of test_operations.py with a real log (needs $DSSM_DATA).
"""

from __future__ import annotations

import gzip
from collections import Counter

import pytest
from mlflow import MlflowClient

from dssm_core.runs.run import open_run
from tests.conftest import REPO, TRAINING, complete, running_site, wait_until
from tests.e2e.airflow_runs import INGEST, ended
from tests.e2e.test_operations import windows

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.soak,
    pytest.mark.data,
]
CONFIG = "globo-days"
DAYS = [f"2017-10-0{day}" for day in range(1, 10)]
# 2017-10-01 00:00 in America/Sao_Paulo, 03:00 UTC. Summer time began on the 15th.
FIRST_DAY_S = 1_506_826_800


@pytest.fixture(scope="module")
def clicks(data_root):
    """The number of clicks of each local day of the log, counted without the project's code."""
    counts: Counter[int] = Counter()
    for file in (data_root / "globo" / "clicks").glob("*.csv.gz"):
        with gzip.open(file, "rt") as lines:
            column = next(lines).rstrip().split(",").index("click_timestamp")
            counts.update(
                (int(line.split(",")[column]) // 1000 - FIRST_DAY_S) // 86_400 for line in lines
            )
    return [counts[day] for day in range(len(DAYS))]


@pytest.fixture(scope="module")
def globo_site(data_root, tmp_path_factory):
    """Servers with the config of Globo and a short training."""
    small = {
        "extends": str(REPO / "configs" / "globo.yaml"),
        "name": CONFIG,
        "data": {"source": {"path": str(data_root / "globo" / "clicks")}},
        "train": {"epochs": 1, "negatives": 64, "refit": False, "device": "cpu"},
        "evaluation": {"bootstrap": 20, "baselines": ["hot"]},
    }
    with running_site(tmp_path_factory.mktemp("globo"), CONFIG, {CONFIG: small}) as servers:
        yield servers


@pytest.fixture(scope="module")
def airflow(globo_site):
    client = globo_site.airflow()
    wait_until(
        lambda: client.offers(TRAINING, CONFIG) and client.offers(INGEST, CONFIG),
        "the Dags are parsed",
    )
    return client


@pytest.mark.timeout(2400)
def test_nine_days_that_land_one_by_one_train_three_windows(airflow, globo_site, clicks):
    for day, rows in zip(DAYS, clicks, strict=True):
        land(airflow, day, rows)
    wait_until(
        lambda: set(windows(airflow)) == set(DAYS[6:]),
        "the windows of days 7, 8 and 9 have started",
    )
    for key, (run_id,) in windows(airflow).items():
        assert complete(airflow, run_id) == "success", airflow.tasks(TRAINING, run_id)
        check(open_run(airflow.xcom(TRAINING, run_id, "ingest_data")), DAYS.index(key), clicks)
        check_end(airflow, run_id, MlflowClient(tracking_uri=globo_site.mlflow_url))
    assert {key: len(runs) for key, runs in windows(airflow).items()} == dict.fromkeys(DAYS[6:], 1)
    assert airflow.get(f"dags/{TRAINING}/dagRuns")["total_entries"] == 3


def land(airflow, day, rows):
    run_id = airflow.trigger(INGEST, {"config": CONFIG, "day": day})
    ended(airflow, INGEST, run_id)
    assert airflow.state(INGEST, run_id) == "success", airflow.log_text(
        INGEST, run_id, "land_day", 1
    )
    assert airflow.xcom(INGEST, run_id, "land_day")["rows"]["landed"] == rows


def check(run, last, clicks):
    """A run has read seven days and no row of any other day, and has trained on the first six."""
    assert sorted(run.config.data.source.settings["days"]) == DAYS[last - 6 : last + 1]
    assert run.config.split.title == DAYS[last]
    assert run.need("ingest_data").rows["read"] == sum(clicks[last - 6 : last + 1])
    rows = run.need("split_by_time").rows
    assert {name: rows[name] for name in ("train", "test", "outside", "quarantined")} == {
        "train": sum(clicks[last - 6 : last]),
        "test": clicks[last],
        "outside": 0,
        "quarantined": 0,
    }


def check_end(airflow, run_id, mlflow):
    """A version with the run's test day is registered, or the gate gives its reasons."""
    run = open_run(airflow.xcom(TRAINING, run_id, "ingest_data"))
    state = airflow.tasks(TRAINING, run_id)["register_model"]["state"]
    verdict = run.need("recall_gate").info
    assert state == ("success" if verdict["passed"] else "skipped")
    if not verdict["passed"]:
        assert verdict["reasons"]
        return
    version = mlflow.get_model_version(
        run.config.model_name, str(run.need("register_model").info["version"])
    )
    assert (version.status, version.tags["dssm.test_day"]) == ("READY", run.config.split.title)
