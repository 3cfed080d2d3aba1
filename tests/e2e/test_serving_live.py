"""What uses a champion, on real servers: its report, the page of MLflow runs, audiences, refreshes,
and a model server that follows them.
"""

from __future__ import annotations

import json
from datetime import datetime
from functools import partial

import httpx
import mlflow as mlflow_package
import numpy as np
import pandas as pd
import pytest
from mlflow import MlflowClient

from dssm_core.retrieval.bundle import open_bundle
from dssm_core.runs.run import open_run
from local import servers
from tests.conftest import DAYS, TRAINING, complete, served_model
from tests.e2e.airflow_runs import INGEST, LOOKALIKE, REFRESH, ended, version

pytestmark = pytest.mark.e2e
CONFIG = "served"
MODEL = "dssm-served"
# The champion is trained on the first six days; the ninth has not landed.
LANDED = DAYS[:8]
CUTOFF = DAYS[6]
MOMENT = f"{DAYS[8]}T12:00:00Z"


@pytest.fixture(scope="module")
def clicks(root):
    return pd.read_csv(root / "log-served" / "clicks.csv")


@pytest.fixture(scope="module")
def landed(airflow):
    """The Dag runs that landed the days, oldest first."""
    return done(airflow, INGEST, *({"day": day} for day in LANDED))


@pytest.fixture(scope="module")
def champion(airflow, landed):
    """The Dag run whose version is the champion."""
    return train(airflow, "Promote")


@pytest.fixture(scope="module")
def refused(airflow, champion):
    """A Dag run of the same training whose model the gate refuses."""
    return train(airflow, gate_floor=0.999)


@pytest.fixture(scope="module")
def bundle(airflow, champion):
    return open_bundle(trained(airflow, champion).step("register_model") / "bundle")


@pytest.fixture(scope="module")
def asks(clicks, bundle):
    """Requests: a user of the training set, a user who appeared after it, and a history."""
    trained_user = bundle.users.decode(np.array([1]))[0]
    late = clicks[(clicks.timestamp >= ms(CUTOFF)) & (clicks.timestamp < ms(MOMENT))].user_id
    new_user = next(user for user in late if bundle.users.encode(pd.Series([user]))[0] == 0)
    return pd.DataFrame(
        {"user_id": [trained_user, new_user, None], "history": [[], [], list(clicks.item_id[:3])]}
    )


@pytest.fixture(scope="module")
def server(site, root, champion, tmp_path_factory):
    """A function that asks `mlflow models serve` of the champion and returns its answer."""
    env = servers.environment(site) | {"DSSM_REFRESHED": str(root / "refreshed")}
    with served_model(f"models:/{MODEL}@champion", tmp_path_factory.mktemp("serve"), env) as url:
        yield partial(question, url)


def question(url, frame, k):
    """The server's answer as the frame that the model returns."""
    body = {"dataframe_records": json.loads(frame.to_json(orient="records")), "params": {"k": k}}
    answer = httpx.post(url, json=body, timeout=60, trust_env=False)
    assert answer.status_code == 200, answer.text
    return pd.DataFrame(answer.json()["predictions"])


def ms(text):
    """A moment in milliseconds; without a zone it is in UTC."""
    return int(pd.Timestamp(datetime.fromisoformat(text)).tz_localize(None).timestamp() * 1000)


def done(airflow, dag, *forms):
    """Trigger runs without a review, wait until all have ended, and return their ids."""
    runs = [airflow.trigger(dag, {"config": CONFIG} | form) for form in forms]
    for run_id in runs:
        ended(airflow, dag, run_id)
    return runs


def train(airflow, answer="Keep as challenger", **form):
    run_id = airflow.trigger(
        TRAINING, {"config": CONFIG, "landed": True, "test_day": CUTOFF} | form
    )
    assert complete(airflow, run_id, answer) == "success", airflow.tasks(TRAINING, run_id)
    return run_id


def trained(airflow, run_id):
    """The folder of a training."""
    return open_run(airflow.xcom(TRAINING, run_id, "ingest_data"))


def returned(airflow, dag, task, run_id):
    """The value that the only task of a run returned."""
    assert airflow.state(dag, run_id) == "success", airflow.log_text(dag, run_id, task, 1)
    return airflow.xcom(dag, run_id, task)


def failed_at_once(airflow, dag, task, run_id):
    """The log of a run's only task, which failed and was not retried."""
    attempt = airflow.tasks(dag, run_id)[task]
    assert (attempt["state"], attempt["try_number"]) == ("failed", 1), airflow.log_text(
        dag, run_id, task, attempt["try_number"]
    )
    return airflow.log_text(dag, run_id, task, 1)


def test_days_of_another_config_start_no_window(airflow, landed):
    """Only windows of $DSSM_CONFIG, which is `daily`, start without a trigger."""
    for run_id in landed:
        states = {name: task["state"] for name, task in airflow.tasks(INGEST, run_id).items()}
        assert (states["land_day"], states["announce"]) == ("success", "skipped")


# --- the report and the page


@pytest.mark.parametrize("which", ["champion", "refused"])
def test_the_button_of_the_report_leads_to_the_page_that_mlflow_serves(
    which, airflow, site, request
):
    run_id = request.getfixturevalue(which)
    links = airflow.get(f"dags/{TRAINING}/dagRuns/{run_id}/taskInstances/recall_gate/links")[
        "extra_links"
    ]
    address, _, shown = links["MLflow run"].partition("/#/")
    assert links["Report"] == f"{links['MLflow run']}/artifacts/report.html"
    assert address == site.mlflow_url
    assert browse(links["Report"]).status_code == 200
    report = browse(
        f"{address}/get-artifact", path="report.html", run_uuid=shown.rpartition("/")[2]
    )
    assert report.status_code == 200
    assert trained(airflow, run_id).id in report.text
    assert ("the floor of 0.999" in report.text) == (which == "refused")


def browse(url, **request):
    cookies = request.pop("cookies", None)
    return httpx.get(url, params=request or None, cookies=cookies, timeout=60, trust_env=False)


@pytest.fixture(scope="module")
def cookie(site):
    """The cookie of a login, as a browser keeps it."""
    login = {"username": "admin", "password": site.settings["password"]}
    answer = httpx.post(f"{site.airflow_url}/auth/token", json=login, timeout=60, trust_env=False)
    return {"_token": answer.json()["access_token"]}


def test_the_page_of_mlflow_runs_requires_a_login(site):
    for cookies, status in ((None, 401), ({"_token": "made-up"}, 403)):
        answer = browse(f"{site.airflow_url}/dssm/runs", dag_id=TRAINING, cookies=cookies)
        assert (answer.status_code, "MLflow" in answer.text) == (status, False)


def test_the_page_lists_the_mlflow_runs_of_a_dag_and_of_one_run(
    airflow, site, champion, refused, cookie
):
    links = {
        run_id: airflow.xcom(TRAINING, run_id, "recall_gate", "mlflow_run")
        for run_id in (champion, refused)
    }
    everything = browse(f"{site.airflow_url}/dssm/runs", dag_id=TRAINING, cookies=cookie)
    assert everything.status_code == 200
    assert all(link in everything.text for link in links.values())
    one = browse(
        f"{site.airflow_url}/dssm/runs", dag_id=TRAINING, run_id=refused, cookies=cookie
    ).text
    assert "1 MLflow run of" in one
    assert links[refused] in one
    assert links[champion] not in one
    assert "the floor of 0.999" in one
    nothing = browse(f"{site.airflow_url}/dssm/runs", dag_id=LOOKALIKE, cookies=cookie)
    assert f"MLflow has no run of {LOOKALIKE} yet" in nothing.text


# --- audiences


def scores(bundle, ask):
    """The score of every user by brute force: `ask` maps user vectors [U, D] to scores [U]."""
    vectors = np.asarray(bundle.user_vectors[1:], dtype=np.float64)
    return dict(
        zip(bundle.users.decode(np.arange(1, len(bundle.users))), ask(vectors), strict=True)
    )


def like(seeds, bundle):
    def ask(vectors):
        unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
        return unit @ unit[bundle.users.encode(pd.Series(seeds)) - 1].mean(0)

    return scores(bundle, ask)


def near(item, bundle):
    (code,) = bundle.items.encode(pd.Series([item]))
    return scores(
        bundle, lambda vectors: vectors @ np.load(bundle.folder / "item_embeddings.npy")[code - 1]
    )


def check(file, expected, top, left_out=()):
    """A file of an audience holds the best users in the order of their scores, none left out."""
    table = pd.read_parquet(file) if file.endswith(".parquet") else pd.read_csv(file)
    best = sorted(
        (score for user, score in expected.items() if user not in left_out), reverse=True
    )[:top]
    assert table["rank"].tolist() == list(range(1, top + 1))
    assert not set(table.user_id) & set(left_out)
    np.testing.assert_allclose(table.score, best, atol=1e-5)
    np.testing.assert_allclose(table.score, [expected[user] for user in table.user_id], atol=1e-5)


def test_audiences_from_seeds_and_from_an_item_of_the_champion_and_of_a_run(
    airflow, root, champion, bundle
):
    seeds, item = (
        list(bundle.users.decode(np.array([3, 5, 8]))),
        str(bundle.items.decode(np.array([2]))[0]),
    )
    (root / "seeds.csv").write_text("\n".join(["user_id", seeds[1], "nobody"]))
    both = {"seeds": [seeds[0], seeds[2]], "seeds_file": str(root / "seeds.csv")}
    run = str(trained(airflow, champion).root.relative_to(root / "runs"))
    forms = [
        both,
        {"item": item, "format": "csv"},
        both | {"run": run, "exclude_seeds": False},
        {"item": item, "run": run},
    ]
    runs = done(airflow, LOOKALIKE, *({"top": 50} | form for form in forms))
    by_seeds, by_item, with_seeds, of_run = (
        returned(airflow, LOOKALIKE, "find_audience", run_id) for run_id in runs
    )
    assert (by_seeds["model"], by_seeds["version"]) == (MODEL, version(airflow, champion))
    assert (by_seeds["seeds"], by_seeds["unknown_seeds"], by_seeds["unknown"]) == (3, 1, ["nobody"])
    check(by_seeds["file"], like(seeds, bundle), 50, seeds)
    check(with_seeds["file"], like(seeds, bundle), 50)
    for result in (by_item, of_run):
        check(result["file"], near(item, bundle), 50)
    assert of_run["run"] == trained(airflow, champion).id
    assert all(
        result["file"].startswith(str(root / "runs" / "audiences" / MODEL))
        for result in (by_seeds, by_item, with_seeds, of_run)
    )


def test_a_wrong_form_fails_without_a_retry_and_says_why(airflow, champion, tmp_path):
    (tmp_path / "seeds.csv").write_text("user_id\nu1\n")
    wrong = {
        "item 'nothing' is not among the model's": {"item": "nothing"},
        "give either seed users or one item to start from: neither is given": {},
        "give either seed users or one item to start from: both are given": {
            "item": "a1",
            "seeds": ["u1"],
        },
        "1 of 1 seeds are no users of this model, such as nobody": {"seeds": ["nobody"]},
        "only these folders may be read": {"seeds_file": str(tmp_path / "seeds.csv")},
        "run 'served/2024-03-07/none' is not in": {"item": "a1", "run": "served/2024-03-07/none"},
        "model 'dssm-served' has no version 99: it has [1]": {"item": "a1", "version": "99"},
    }
    for message, run_id in zip(wrong, done(airflow, LOOKALIKE, *wrong.values()), strict=True):
        assert message in failed_at_once(airflow, LOOKALIKE, "find_audience", run_id)


# --- refreshes


def refresh(airflow, moment):
    (run_id,) = done(airflow, REFRESH, {"as_of": moment})
    return returned(airflow, REFRESH, "refresh_champion", run_id)


def refreshed(root):
    """The folder that is served, and the time at which its lineage was written."""
    folder = (root / "refreshed" / MODEL / "current").resolve()
    return folder, (folder / "lineage.json").stat().st_mtime_ns


def test_a_served_champion_follows_a_refresh_without_a_restart(
    airflow, root, champion, bundle, clicks, asks, server, site, monkeypatch
):
    before = server(asks, 20)
    assert before.item_ids.tolist() == bundle.retrieve(asks, 20).item_ids.tolist()
    result = refresh(airflow, MOMENT)
    folder, _ = refreshed(root)
    lineage = json.loads((folder / "lineage.json").read_bytes())
    assert (lineage["model"], lineage["version"], lineage["as_of"]) == (
        MODEL,
        version(airflow, champion),
        MOMENT,
    )
    assert (result["key"], result["clicks"]) == (lineage["key"], lineage["clicks"])
    days, files = lineage["read_from"]
    # Six days back from noon of the ninth day, which is read from the log itself.
    assert sorted(days["days"]) == DAYS[2:8]
    assert list(files["files"]) == ["clicks.csv"]
    window = clicks[
        (clicks.timestamp >= ms(f"{DAYS[2]}T12:00:00")) & (clicks.timestamp < ms(MOMENT))
    ]
    since = window[window.timestamp >= ms(CUTOFF)]
    assert (lineage["clicks"]["read"], lineage["clicks"]["since_training"]) == (
        len(window),
        len(since),
    )
    after = open_bundle(folder)
    assert all(after.users.encode(since.user_id.drop_duplicates()) > 0)
    expected = after.retrieve(asks, 20).item_ids.tolist()
    assert before.item_ids.tolist() != expected
    assert server(asks, 20).item_ids.tolist() == expected
    loaded = load_champion(site, root, monkeypatch)
    assert loaded.predict(asks, params={"k": 20}).item_ids.tolist() == expected


def load_champion(site, root, monkeypatch):
    """The champion, loaded as in any Python program."""
    monkeypatch.setenv("DSSM_REFRESHED", str(root / "refreshed"))
    mlflow_package.set_tracking_uri(site.mlflow_url)
    mlflow_package.set_registry_uri(site.mlflow_url)
    return mlflow_package.pyfunc.load_model(f"models:/{MODEL}@champion")


def test_the_same_moment_again_changes_nothing_and_an_older_one_is_refused(
    airflow, root, champion, site
):
    first = refresh(airflow, MOMENT)
    before = refreshed(root)
    again = refresh(airflow, MOMENT)
    assert (again, refreshed(root)) == (first, before)
    refused = {
        f"{DAYS[8]}T11:00:00Z": f"{MODEL} version {version(airflow, champion)} is refreshed"
        f" as of {MOMENT} already",
        f"{DAYS[5]}T00:00:00Z": f"{MODEL} cannot be refreshed as of {DAYS[5]}T00:00:00Z:"
        f" it was trained on everything before {CUTOFF}",
    }
    for message, run_id in zip(
        refused.values(),
        done(airflow, REFRESH, *({"as_of": moment} for moment in refused)),
        strict=True,
    ):
        assert message in failed_at_once(airflow, REFRESH, "refresh_champion", run_id)
    assert refreshed(root) == before
    aliases = MlflowClient(tracking_uri=site.mlflow_url).get_registered_model(MODEL).aliases
    assert aliases["champion"] == version(airflow, champion)
