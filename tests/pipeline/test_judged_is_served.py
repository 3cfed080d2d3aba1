"""What is judged is what is served: the gate's lists are those of a running server."""

from __future__ import annotations

import os
from dataclasses import replace

import httpx
import numpy as np
import pandas as pd
import pytest

from dssm_core.config import parse_config
from dssm_core.evaluation.answers import answer, list_search, open_served
from dssm_core.evaluation.fitting import fit_baselines
from dssm_core.evaluation.queries import ListRules, read_evaluation_data
from dssm_core.retrieval.catalogue import open_catalogue
from dssm_core.runs.run import create_run
from dssm_core.runs.table import STEPS
from dssm_core.runs.transaction import execute
from tests.conftest import served_model, small_config

K = 100
USERS = 1000
FEW = ["c2", "c3"]
FILTERS = {
    "what the model says": ({}, True, ["category != 'c0'"]),
    "seen items too, two conditions": (
        {"exclude_seen": False, "filters": ["created_at < '2024-03-05'", "category != 'c1'"]},
        False,
        ["category != 'c0'", "created_at < '2024-03-05'", "category != 'c1'"],
    ),
    "few items": (
        {"exclude_seen": True, "filters": [f"'t1' in tags or category in {FEW}"]},
        True,
        ["category != 'c0'", f"'t1' in tags or category in {FEW}"],
    ),
}


@pytest.fixture(scope="module", params=["faiss_flat", "faiss_ivf"])
def judged(request, tmp_path_factory):
    """A run that passed its gate, and the address of a server of its version."""
    folder = tmp_path_factory.mktemp("judged")
    raw = small_config(
        train__epochs=1,
        features={"columns": {"item": [{"column": "tags", "kind": "multi"}]}},
        evaluation={"bootstrap": 20, "exclude_seen": True, "baselines": ["hot"]},
        serving={"filters": ["category != 'c0'"], "columns": ["category"]},
        index={"kind": request.param},
    )
    if request.param == "faiss_ivf":
        raw["index"] |= {"nprobe": 2}
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        run = create_run(parse_config(raw), folder / "runs", "judged")
        for name in STEPS:
            execute(run, name)
    environment = os.environ | {"MLFLOW_TRACKING_URI": f"sqlite:///{run.runs / 'mlflow.db'}"}
    with served_model(f"models:/{run.config.model_name}/1", folder, environment) as url:
        yield run, url


@pytest.mark.parametrize("name", FILTERS)
def test_the_gate_judges_the_lists_that_the_server_gives(judged, name):
    run, url = judged
    parameters, exclude_seen, filters = FILTERS[name]
    queries, data = asked(run, exclude_seen, filters)
    with open_served(run) as opened:
        search = opened.search(opened.served, opened.encode(queries))
        rows = answer(search, queries, 0, USERS, K)
    wanted = [data.items.decode(listed[listed >= 0] + 1).tolist() for listed in rows]
    body = {
        "dataframe_split": {"columns": ["user_id"], "data": [[user] for user in queries.users]},
        "params": {"k": K, **parameters},
    }
    reply = httpx.post(url, json=body, timeout=60, trust_env=False).raise_for_status().json()
    assert [row["item_ids"] for row in reply["predictions"]] == wanted
    full = np.minimum(queries.eligible.counts(USERS), K)
    assert [len(listed) for listed in wanted] == full.tolist()


@pytest.mark.parametrize("name", FILTERS)
def test_baselines_hold_to_the_same_rules(judged, name):
    """By hand, from the tables of the log."""
    run, _ = judged
    _, exclude_seen, filters = FILTERS[name]
    queries, data = asked(run, exclude_seen, filters)
    baseline = fit_baselines(run.config, data.train, data.cutoff_ms)["hot"]
    rows = answer(list_search(baseline, queries.histories), queries, 0, USERS, K)
    clicks = pd.read_parquet(run.step("split_by_time") / "train.parquet").query("label == 1")
    seen = clicks.groupby("user_id")["item_id"].agg(set)
    items = pd.read_parquet(run.step("validate_data") / "items.parquet").set_index("item_id")
    for user, listed in zip(queries.users[:50], rows, strict=False):
        ids = data.items.decode(listed[listed >= 0] + 1).tolist()
        assert "c0" not in set(items.loc[ids, "category"])
        if name == "few items":
            tags, category = items.loc[ids, "tags"], items.loc[ids, "category"]
            assert (tags.str.split("|").map(lambda all: "t1" in all) | category.isin(FEW)).all()
        assert not exclude_seen or not seen.get(user, set()) & set(ids)


def asked(run, exclude_seen, filters):
    """The first queries of all users, with other rules than the run's; and the evaluation data."""
    data = read_evaluation_data(run)
    queries = data.all.take(np.arange(USERS))
    n_items = data.all.eligible.n_items
    catalogue = open_catalogue(run.step("export_embeddings"), n_items)
    rules = ListRules(n_items, catalogue.allowed(filters, data.cutoff_ms), exclude_seen)
    return replace(queries, eligible=rules.eligible(queries.histories)), data
