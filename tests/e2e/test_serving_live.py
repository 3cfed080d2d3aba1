"""What stands around a champion, on real servers: its report and its page, audiences, refreshes,
and a server that follows them.
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
from tests.conftest import DAYS, TRAINING, complete, served_model, wait_until
from tests.e2e.test_operations import INGEST, ended, version

pytestmark = pytest.mark.e2e
CONFIG, MODEL = "served", "dssm-served"
LOOKALIKE, REFRESH = "dssm_lookalike", "dssm_refresh"
LANDED, CUTOFF = (
    DAYS[:8],
    DAYS[6],
)  # the champion is trained on the first six days; the ninth has not landed
MOMENT = f"{DAYS[8]}T12:00:00Z"


@pytest.fixture(scope="module")
def airflow(site):
    client = site.airflow()
    wait_until(
        lambda: all(client.knows(dag, CONFIG) for dag in (TRAINING, INGEST, LOOKALIKE, REFRESH)),
        "the Dags are parsed",
    )
    return client


@pytest.fixture(scope="module")
def root(site):
    return site.state.parent


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
    """A Dag run of the same training that the gate refuses."""
    return train(airflow, gate_floor=0.999)


@pytest.fixture(scope="module")
def bundle(airflow, champion):
    return open_bundle(trained(airflow, champion).step("register_model") / "bundle")


@pytest.fixture(scope="module")
def asks(clicks, bundle):
    """Users who ask: one known to train, one who came after it, and a history."""
    known = bundle.users.decode(np.array([1]))[0]
    late = clicks[(clicks.timestamp >= ms(CUTOFF)) & (clicks.timestamp < ms(MOMENT))].user_id
    new = next(user for user in late if bundle.users.encode(pd.Series([user]))[0] == 0)
    return pd.DataFrame(
        {"user_id": [known, new, None], "history": [[], [], list(clicks.item_id[:3])]}
    )


@pytest.fixture(scope="module")
def server(site, root, champion, tmp_path_factory):
    """`mlflow models serve` of the champion; a function: its answer."""
    env = servers.environment(site) | {"DSSM_REFRESHED": str(root / "refreshed")}
    with served_model(f"models:/{MODEL}@champion", tmp_path_factory.mktemp("serve"), env) as url:
        yield partial(question, url)


def question(url, frame, k):
    """The server's answer as the model gave it."""
    body = {"dataframe_records": json.loads(frame.to_json(orient="records")), "params": {"k": k}}
    answer = httpx.post(url, json=body, timeout=60, trust_env=False)
    assert answer.status_code == 200, answer.text
    return pd.DataFrame(answer.json()["predictions"])


def ms(text):
    """A moment as the log has it; one without a zone is UTC's."""
    return int(pd.Timestamp(datetime.fromisoformat(text)).tz_localize(None).timestamp() * 1000)


def done(airflow, dag, *forms):
    """Trigger runs that ask nobody and wait until all have ended; their ids."""
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


def found(airflow, dag, task, run_id):
    """What the only task of a run returned."""
    assert airflow.state(dag, run_id) == "success", airflow.log_text(dag, run_id, task, 1)
    return airflow.xcom(dag, run_id, task)


def failed_at_once(airflow, dag, task, run_id):
    """The log of a run's only task, which failed and was not tried again."""
    attempt = airflow.tasks(dag, run_id)[task]
    assert (attempt["state"], attempt["try_number"]) == ("failed", 1), airflow.log_text(
        dag, run_id, task, attempt["try_number"]
    )
    return airflow.log_text(dag, run_id, task, 1)


def test_days_of_another_config_wake_no_window(airflow, landed):
    """The windows that start by themselves are those of $DSSM_CONFIG, `daily`."""
    for run_id in landed:
        states = {name: task["state"] for name, task in airflow.tasks(INGEST, run_id).items()}
        assert (states["land_day"], states["announce"]) == ("success", "skipped")


# --- the report and the page ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("which", ["champion", "refused"])
def test_the_report_s_button_leads_to_what_mlflow_serves(which, airflow, site, request):
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
    assert ("the floor 0.999" in report.text) == (which == "refused")


def browse(url, **request):
    cookies = request.pop("cookies", None)
    return httpx.get(url, params=request or None, cookies=cookies, timeout=60, trust_env=False)


@pytest.fixture(scope="module")
def cookie(site):
    """What a browser keeps of a login."""
    login = {"username": "admin", "password": site.settings["password"]}
    answer = httpx.post(f"{site.airflow_url}/auth/token", json=login, timeout=60, trust_env=False)
    return {"_token": answer.json()["access_token"]}


def test_the_page_of_mlflow_runs_asks_for_a_login(site):
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
    assert "the floor 0.999" in one
    nothing = browse(f"{site.airflow_url}/dssm/runs", dag_id=LOOKALIKE, cookies=cookie)
    assert f"MLflow has no run of {LOOKALIKE} yet" in nothing.text


# --- audiences --------------------------------------------------------------------------------------------------------------------


def scores(bundle, ask):
    """Every user's score by brute force: ask [D] is compared with all users at length 1."""
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


def check(file, wanted, top, left_out=()):
    """An audience's file: the best users by their scores, in order, those left out not among them."""
    table = pd.read_parquet(file) if file.endswith(".parquet") else pd.read_csv(file)
    best = sorted((score for user, score in wanted.items() if user not in left_out), reverse=True)[
        :top
    ]
    assert table["rank"].tolist() == list(range(1, top + 1))
    assert not set(table.user_id) & set(left_out)
    np.testing.assert_allclose(table.score, best, atol=1e-5)
    np.testing.assert_allclose(table.score, [wanted[user] for user in table.user_id], atol=1e-5)


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
    by_seeds, by_item, kept, of_run = (
        found(airflow, LOOKALIKE, "find_audience", run_id) for run_id in runs
    )
    assert (by_seeds["model"], by_seeds["version"]) == (MODEL, version(airflow, champion))
    assert (by_seeds["seeds"], by_seeds["unknown_seeds"], by_seeds["unknown"]) == (3, 1, ["nobody"])
    check(by_seeds["file"], like(seeds, bundle), 50, seeds)
    check(kept["file"], like(seeds, bundle), 50)
    for told in (by_item, of_run):
        check(told["file"], near(item, bundle), 50)
    assert of_run["run"] == trained(airflow, champion).id
    assert all(
        told["file"].startswith(str(root / "runs" / "audiences" / MODEL))
        for told in (by_seeds, by_item, kept, of_run)
    )


def test_a_wrong_question_fails_at_once_and_says_why(airflow, champion, tmp_path):
    (tmp_path / "seeds.csv").write_text("user_id\nu1\n")
    wrong = {
        "item 'nothing' is not among the model's": {"item": "nothing"},
        "give seed users or one item to start from, not neither": {},
        "give seed users or one item to start from, not both": {"item": "a1", "seeds": ["u1"]},
        "1 of 1 seeds are no users of this model, such as nobody": {"seeds": ["nobody"]},
        "only these folders may be read": {"seeds_file": str(tmp_path / "seeds.csv")},
        "run 'served/2024-03-07/none' is not in": {"item": "a1", "run": "served/2024-03-07/none"},
        "model 'dssm-served' has no version 99: it has [1]": {"item": "a1", "version": "99"},
    }
    for said, run_id in zip(wrong, done(airflow, LOOKALIKE, *wrong.values()), strict=True):
        assert said in failed_at_once(airflow, LOOKALIKE, "find_audience", run_id)


# --- refreshes --------------------------------------------------------------------------------------------------------------------


def refresh(airflow, moment):
    (run_id,) = done(airflow, REFRESH, {"as_of": moment})
    return found(airflow, REFRESH, "refresh_champion", run_id)


def refreshed(root):
    """The folder that is served, and when its lineage was written."""
    folder = (root / "refreshed" / MODEL / "current").resolve()
    return folder, (folder / "lineage.json").stat().st_mtime_ns


def test_a_served_champion_follows_a_refresh_without_a_restart(
    airflow, root, champion, bundle, clicks, asks, server, site, monkeypatch
):
    before = server(asks, 20)
    assert before.item_ids.tolist() == bundle.retrieve(asks, 20).item_ids.tolist()
    made = refresh(airflow, MOMENT)
    folder, _ = refreshed(root)
    lineage = json.loads((folder / "lineage.json").read_bytes())
    assert (lineage["model"], lineage["version"], lineage["as_of"]) == (
        MODEL,
        version(airflow, champion),
        MOMENT,
    )
    assert (made["key"], made["clicks"]) == (lineage["key"], lineage["clicks"])
    days, files = lineage["read_from"]
    assert (
        sorted(days["days"]) == DAYS[2:8]
    )  # six days back from noon of the ninth; that one is of the log itself
    assert list(files["files"]) == ["clicks.csv"]
    window = clicks[
        (clicks.timestamp >= ms(f"{DAYS[2]}T12:00:00")) & (clicks.timestamp < ms(MOMENT))
    ]
    since = window[window.timestamp >= ms(CUTOFF)]
    assert (lineage["clicks"]["read"], lineage["clicks"]["since_training"]) == (
        len(window),
        len(since),
    )
    now = open_bundle(folder)
    assert all(now.users.encode(since.user_id.drop_duplicates()) > 0)
    wanted = now.retrieve(asks, 20)
    assert before.item_ids.tolist() != wanted.item_ids.tolist()
    assert server(asks, 20).item_ids.tolist() == wanted.item_ids.tolist()
    assert (
        loaded(site, root, monkeypatch).predict(asks, params={"k": 20}).item_ids.tolist()
        == wanted.item_ids.tolist()
    )


def loaded(site, root, monkeypatch):
    """The champion as any Python program loads it."""
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
        f"{DAYS[8]}T11:00:00Z": f"{MODEL} version {version(airflow, champion)} is refreshed as of {MOMENT} already",
        f"{DAYS[5]}T00:00:00Z": f"{MODEL} cannot be refreshed as of {DAYS[5]}T00:00:00Z: it was trained on everything before {CUTOFF}",
    }
    for said, run_id in zip(
        refused.values(),
        done(airflow, REFRESH, *({"as_of": moment} for moment in refused)),
        strict=True,
    ):
        assert said in failed_at_once(airflow, REFRESH, "refresh_champion", run_id)
    assert refreshed(root) == before
    aliases = MlflowClient(tracking_uri=site.mlflow_url).get_registered_model(MODEL).aliases
    assert aliases["champion"] == version(airflow, champion)
