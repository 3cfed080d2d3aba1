"""The sample of users: who is asked, that everyone is asked the same, and what the sample says."""

import hashlib

import numpy as np
import pandas as pd
import pytest

from dssm_core.cli.screen import metrics_tables
from dssm_core.config import parse_config
from dssm_core.evaluation import answers
from dssm_core.evaluation.asked import AskedUsers
from dssm_core.evaluation.queries import read_evaluation_data
from dssm_core.features.ids import Ids
from dssm_core.gate.judge import judge
from dssm_core.registry import versions
from dssm_core.report import verdict
from dssm_core.retrieval.bundle import Bundle, assemble
from tests.conftest import measured
from tests.unit.conftest import USERS, clicks, finish, write_log

USERS_IN_TEST = 400


def limit(run, most, seed=42):
    """The run with evaluation.max_users and a seed, judged by recall@1."""
    raw = run.config.model_dump() | {"seed": seed}
    raw["evaluation"] |= {"max_users": most, "ks": [1, 2]}
    raw["gate"] |= {"k": 1}
    run.__dict__["config"] = parse_config(raw)
    return run


@pytest.fixture
def crowd(fabricate):
    """A run whose user u, of 400, points at item 10, and clicks it in the test set if u is even,
    else the opposite item 30. Recall@1 is 1 for even users and 0 for odd ones, so their mean is
    0.5.
    """
    run = fabricate()
    names = [f"u{user}" for user in range(USERS_IN_TEST)]
    train = [(name, item, -9, 1) for name in names for item in (10, 20, 30, 40)]
    test = [(name, 30 if nth % 2 else 10, 1, 1) for nth, name in enumerate(names)]
    test += [(name, 20, 2, 0) for name in names]
    folder = run.step("split_by_time")
    clicks(run, train).to_parquet(folder / "train.parquet")
    clicks(run, test).to_parquet(folder / "test.parquet")
    users = Ids(pd.Index(sorted(names)))
    exported = run.step("export_embeddings")
    users.save(exported / "user_ids.parquet", "user_id")
    np.save(exported / "user_embeddings.npy", np.repeat(USERS[[1]], USERS_IN_TEST + 1, axis=0))
    write_log(run, users, Ids(pd.Index([10, 20, 30, 40])))
    finish(run, "export_embeddings")
    return run


def lowest_hashes(users, seed, most):
    """The oracle of the sample: the lower 64 bits of md5("seed:user"), the `most` lowest."""

    def key(user):
        digest = hashlib.md5(f"{seed}:{user}".encode()).digest()
        return int.from_bytes(digest[8:], "little")

    return set(sorted(users, key=key)[:most])


def asked(run):
    return set(AskedUsers.of(run).ids.to_pylist())


def test_the_sample_is_a_function_of_the_seed_and_the_ids(crowd):
    names = [f"u{user}" for user in range(USERS_IN_TEST)]
    assert asked(limit(crowd, 50)) == lowest_hashes(names, 42, 50)
    assert asked(limit(crowd, 50, seed=1)) == lowest_hashes(names, 1, 50) != asked(limit(crowd, 50))


def test_more_users_displace_some_of_a_sample_and_a_larger_sample_holds_a_smaller_one(crowd):
    before = asked(limit(crowd, 100))
    assert asked(limit(crowd, 50)) < before < asked(limit(crowd, 200))
    file = crowd.step("split_by_time") / "test.parquet"
    more = pd.read_parquet(file).assign(user_id=lambda rows: "new" + rows["user_id"])
    pd.concat([more.head(100), pd.read_parquet(file)]).to_parquet(file)
    after = asked(limit(crowd, 100))
    joined = {user for user in after if user.startswith("new")}
    assert after - joined < before
    assert len(after) == 100
    assert 0 < len(joined) < 50


def test_whole_numbers_are_drawn_as_their_text(fabricate):
    run = limit(fabricate(), 2)
    assert asked(run) == lowest_hashes([1, 2, 3, 7], 42, 2)
    data = read_evaluation_data(run)
    assert set(data.all.users.tolist()) == asked(run)


def test_a_limit_that_all_users_reach_changes_nothing(crowd):
    whole = without_seconds(measured(limit(crowd, None)))
    assert without_seconds(measured(limit(crowd, USERS_IN_TEST))) == whole
    assert "sample" not in whole
    assert whole["queries"] == {"warm": USERS_IN_TEST, "all": USERS_IN_TEST}


def without_seconds(metrics):
    baselines = {
        name: {key: value for key, value in scores.items() if key != "seconds"}
        for name, scores in metrics["baselines"].items()
    }
    return metrics | {"baselines": baselines}


def test_the_interval_of_a_sample_holds_the_figure_of_all_users(crowd):
    """The 95 % intervals of at least 7 of 10 samples hold it (fewer have a chance of 1 %)."""
    assert measured(limit(crowd, None))["served"]["recall@1"] == 0.5
    inside = 0
    for seed in range(10):
        served = measured(limit(crowd, 100, seed))["served"]
        inside += served["recall@1_low"] <= 0.5 <= served["recall@1_high"]
    assert inside >= 7


def test_every_answerer_is_asked_by_the_same_users(crowd, tmp_path, monkeypatch):
    """Index, baselines, their variants, the ceiling, the champion and every slice."""
    run = limit(crowd, 50)
    calls = []
    answer = answers.answer

    def recorded(search, queries, *arguments):
        calls.append(queries.users.tolist())
        return answer(search, queries, *arguments)

    monkeypatch.setattr(answers, "answer", recorded)
    read = Bundle.read  # the towers are untrained: the exported vectors answer
    monkeypatch.setattr(
        Bundle, "read", lambda self, frame: read(self, frame.drop(columns="history"))
    )
    fetched = versions.FetchedVersion("4", assemble(run, tmp_path / "bundle"))
    monkeypatch.setattr(versions, "fetch_champion", lambda run, into: fetched)
    monkeypatch.setattr(verdict, "log_verdict", lambda *_: None)
    metrics = judge(run, tmp_path, verdict.publish).info["metrics"]
    everyone = [call for call in calls if len(call) == 50]
    assert len(everyone) == 7  # served, hot, recent_hot, its two variants, ceiling, champion
    assert all(call == everyone[0] for call in everyone)
    assert set(everyone[0]) == asked(run)
    assert metrics["queries"] == {"warm": 50, "all": 50}
    assert metrics["pointwise"]["rows"] == 100  # both rows of each asked user
    assert metrics["sample"] == {"asked": 50, "users": USERS_IN_TEST, "seed": 42}
    # the champion is the same bundle: paired on the same queries, it differs in none
    assert metrics["champion"]["recall@1"] == metrics["served"]["recall@1"]
    difference = metrics["against_champion"]
    assert (difference["mean"], difference["low"], difference["high"]) == (0, 0, 0)


def test_the_ceilings_list_is_that_of_all_users(crowd):
    data = read_evaluation_data(limit(crowd, 50))
    assert data.test_counts.tolist() == [200, 0, 200, 0]


def test_the_sample_is_stated(crowd, tmp_path, monkeypatch):
    run = limit(crowd, 50)
    monkeypatch.setattr(versions, "fetch_champion", lambda run, into: None)
    monkeypatch.setattr(verdict, "log_verdict", lambda *_: None)
    info = judge(run, tmp_path, verdict.publish).info
    sample = "a sample of 50 of 400 users, seed 42"
    assert info["reasons"][0] == (
        f"50 queries of users and items in the training set ({sample}), at least the required 1"
        " (gate.min_queries)"
    )
    assert sample in (tmp_path / "report.html").read_text()
    result = {"metrics": info["metrics"], "gate": {"k": 1}, "test_day": "2024-01-07"}
    titles = list(metrics_tables(result))
    assert f"users and items in the training set (50 queries, {sample})" in titles[0]
