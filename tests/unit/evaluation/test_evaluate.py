"""The made-up run's answers, counted by hand."""

from dataclasses import replace

import numpy as np
import pytest

from dssm_core.evaluation import answers
from dssm_core.evaluation.answers import answer, list_search
from dssm_core.evaluation.measure import mean_and_error, measure
from dssm_core.evaluation.queries import read_evaluation_data
from dssm_core.evaluation.query_rows import RequestRows
from dssm_core.retrieval.eligible import Eligible
from tests.conftest import evaluated, measured


def test_warm_holds_users_and_items_of_train_positives(fabricate):
    data = read_evaluation_data(fabricate())
    # user 3's only click is on an unseen item, user 7 is new: users 1 (items 10, 20) and 2 (item
    # 20) remain
    assert data.warm.users.tolist() == [1, 2]
    assert data.warm.codes.tolist() == [1, 2]
    assert data.warm.relevant.counts.tolist() == [2, 1]


def test_all_holds_everyone_and_new_users_ask_as_the_unknown(fabricate):
    data = read_evaluation_data(fabricate())
    assert data.all.users.tolist() == [1, 2, 3, 7]
    assert data.all.codes.tolist() == [1, 2, 3, 0]
    assert data.all.relevant.counts.tolist() == [2, 1, 1, 1]


def test_numbers_by_hand(fabricate):
    metrics = measured(fabricate())
    served = metrics["served"]
    # user 1 points at item 10 (1 of 2), user 2 at item 20 (1 of 1)
    assert served["recall@1"] == pytest.approx((1 / 2 + 1) / 2)
    assert served["precision@1"] == served["hit_rate@1"] == served["ndcg@1"] == 1
    assert served["recall@200"] == 1
    assert served["precision@200"] == pytest.approx((2 / 200 + 1 / 200) / 2)
    assert served["coverage@1"] == 2 / 4
    assert metrics["exact"] == served
    assert metrics["queries"] == {"warm": 2, "all": 4}
    # everyone: user 3 misses 99; the unknown user points away from 20, so item 40 is first and 10
    # is not
    assert metrics["all"]["served"]["recall@1"] == pytest.approx((1 / 2 + 1 + 0 + 0) / 4)
    assert metrics["all"]["served"]["recall@200"] == pytest.approx((1 + 1 + 0 + 1) / 4)


def test_baselines_and_ceiling_by_hand(fabricate):
    metrics = measured(fabricate())
    hot, recent = metrics["baselines"]["hot"], metrics["baselines"]["recent_hot"]
    assert hot["recall@1"] == 0  # item 30 for all
    assert hot["recall@2"] == pytest.approx(
        (1 / 2 + 1) / 2
    )  # then 20, clicked on the last day, before 10
    assert recent["by_window"].keys() == {"1h", "24h"}
    assert recent["recall@1"] == pytest.approx((1 / 2 + 1) / 2)  # item 20, in either window
    assert metrics["ceiling"] == {"recall@200": 1.0}


def test_curve_ends_where_the_metric_is(fabricate):
    report = evaluated(fabricate())
    metrics = report.metrics.as_json()
    for name, curve in report.curves.items():
        scores = metrics.get(name) or metrics["baselines"][name]
        assert len(curve.mean) == len(curve.error) == 200
        assert curve.mean[[0, 1, 199]].tolist() == pytest.approx(
            [scores[f"recall@{k}"] for k in (1, 2, 200)]
        )


def test_standard_error_by_hand():
    values = np.array(
        [0.0, 0.5, 1.0, 1.0]
    )  # mean 0.625, variance (0.390625 + 0.015625 + 2 * 0.140625) / 3
    mean, error = mean_and_error(np.array([values.sum()]), np.array([(values**2).sum()]), 4)
    assert (mean[0], error[0]) == pytest.approx((0.625, (0.6875 / 3 / 4) ** 0.5))
    assert mean_and_error(np.zeros(2), np.zeros(2), 0).error.tolist() == [0, 0]


def test_chunks_change_nothing(fabricate, monkeypatch):
    run = fabricate()
    whole = without_seconds(measured(run))
    monkeypatch.setattr(answers, "QUERIES_AT_ONCE", 1)
    assert without_seconds(measured(run)) == whole


def without_seconds(metrics):
    baselines = {
        name: {key: value for key, value in scores.items() if key != "seconds"}
        for name, scores in metrics["baselines"].items()
    }
    return metrics | {"baselines": baselines}


def test_a_query_has_its_users_train_clicks_and_the_unknown_none(fabricate):
    data = read_evaluation_data(fabricate())
    assert data.all.codes.tolist() == [1, 2, 3, 0]
    past = data.all.histories
    # rows: item 10 is 0, 20 is 1, 30 is 2; user 3 was shown item 40 and did not take it
    assert [past.part(query, query + 1).items.tolist() for query in range(4)] == [
        [2, 0],
        [2, 1],
        [2],
        [],
    ]


def test_a_baselines_cost_is_told(fabricate):
    for scores in measured(fabricate())["baselines"].values():
        assert scores["seconds"] >= 0


def test_micro_recall_is_hits_over_all_that_was_to_be_found(fabricate):
    served = measured(fabricate())["served"]
    # of three relevant items (user 1: 10, 20; user 2: 20) the first place of each finds one
    assert served["micro_recall@1"] == pytest.approx(2 / 3)
    assert served["recall@1"] == pytest.approx(3 / 4)
    assert served["micro_recall@200"] == 1


def test_what_a_query_has_taken_is_left_out_of_every_answer(fabricate):
    run = fabricate(exclude_seen=True)
    metrics = measured(run)
    # user 1 has taken 30 and 10, user 2 30 and 20: user 1 still finds 20 (of 10 and 20), user 2 can
    # no longer find 20
    for who in (metrics["served"], metrics["exact"], metrics["baselines"]["hot"]):
        assert who["recall@2"] == pytest.approx((1 / 2 + 0) / 2)
    assert metrics["ceiling"]["recall@200"] == pytest.approx((1 / 2 + 0) / 2)
    assert metrics["baselines"]["recent_hot"]["by_window"]["24h"] == pytest.approx((1 / 2 + 0) / 2)


def test_leaving_out_equals_brute_force(fabricate):
    asked = read_evaluation_data(fabricate(exclude_seen=True)).all
    rng = np.random.default_rng(3)
    lists = np.array([rng.permutation(4) for _ in range(4)])

    class Ranker:
        def lists(self, histories, k):
            return lists[4 - len(histories) :, :k]

    search = list_search(Ranker(), asked.histories)
    got = answer(search, asked, 1, 4, 2)
    past = [set(asked.histories.part(query, query + 1).items.tolist()) for query in range(4)]
    wanted = [[row for row in lists[query] if row not in past[query]][:2] for query in range(1, 4)]
    assert got.tolist() == wanted
    everything = replace(asked, eligible=Eligible(4))
    assert answer(search, everything, 1, 4, 2).tolist() == lists[1:, :2].tolist()


def test_pairs_are_judged_where_both_labels_are(fabricate):
    found = measured(fabricate())["pointwise"]
    # warm rows: user 1 with 10, 10, 20 (scores 1, 1, 0) and user 2 with 20 (1) as positives; user 2
    # with 10 (0) as negative
    assert (found["rows"], found["positives"]) == (5, 4)
    assert found["auc"] == pytest.approx((3 + 0.5) / 4)
    assert found["gauc"] == 1  # user 1 has positives only
    assert found["log_loss"] is None  # no towers: no temperature


def test_log_loss_divides_by_the_towers_temperature(fabricate, finish):
    run = fabricate()
    finish(run, "train_towers", info={"temperature": 0.5})
    likely, even = 1 / (1 + np.exp(-2)), 0.5  # scores 1 and 0 over 0.5
    wanted = -(3 * np.log(likely) + 2 * np.log(even)) / 5
    assert measured(run)["pointwise"]["log_loss"] == pytest.approx(wanted)


def test_the_gates_k_is_a_setting(fabricate):
    metrics = measured(fabricate(k=2))
    assert metrics["ceiling"].keys() == {"recall@2"}
    assert "recall@2_low" in metrics["served"]
    assert "recall@200_low" not in metrics["served"]


def test_nobody_to_ask_is_none_and_not_zero(fabricate):
    run = fabricate()
    none = np.zeros(0, dtype=np.int64)
    no_queries = read_evaluation_data(run).all.part(none, none)
    scores = measure(np.ones((4, 200), dtype=np.int64), no_queries, run.config).scores
    assert scores["recall@200"] is None
    assert scores["recall@200_low"] is None


def test_a_request_has_what_the_training_set_knew(fabricate):
    run = fabricate()
    data = read_evaluation_data(run)
    frame = RequestRows.of(data.all, data.items).part(0, 4)
    assert dict(zip(frame.user_id, frame.history, strict=True)) == {
        1: [30, 10],
        2: [30, 20],
        3: [30],
        7: [],
    }
