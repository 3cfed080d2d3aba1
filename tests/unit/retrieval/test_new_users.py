"""Answers for new users: by hand, and equal to the baselines."""

import numpy as np
import pandas as pd
import pytest
import torch

from dssm_core.columns import DAY_MS, HOUR_MS
from dssm_core.config import Features, History, parse_config
from dssm_core.evaluation.answers import open_served
from dssm_core.evaluation.baselines.hot import Hot
from dssm_core.evaluation.baselines.recent_hot import RecentHot
from dssm_core.evaluation.queries import read_evaluation_data
from dssm_core.features.interactions import Interactions
from dssm_core.features.popularity import Clicks
from dssm_core.retrieval.eligible import Eligible
from dssm_core.retrieval.embeddings import hot_list, trained_on_empty_histories
from dssm_core.retrieval.new_users import HotList, answer_sources, open_hot_list
from tests.conftest import small_config

END = 3 * DAY_MS
BY_PLACE = {"features": {"activity": {"enabled": False}}, "sampler": {"kind": "uniform"}}


def log_of(rows):
    """rows: (user, item, hours before the end), oldest first."""
    user, item, hours = (torch.tensor(column) for column in zip(*rows, strict=True))
    time = END - (hours * HOUR_MS).long()
    created = torch.tensor(
        [
            END,
            *(
                int(time[item == code].min()) if (item == code).any() else END
                for code in range(1, 5)
            ),
        ]
    )
    return Interactions(
        user,
        item,
        time,
        torch.zeros(len(user), 0, dtype=torch.int64),
        created,
        torch.tensor([0, END]),
    )


# refreshes at 48 and 24 hours before the end; items 1, 2, 3 of 4 have clicks
OLD = [(1, 1, 70.0), (2, 1, 69.0), (1, 1, 60.0), (2, 2, 50.0)]
NEWCOMER, REGULAR = (3, 1, 20.0), (2, 1, 20.0)
LATE = [(1, 3, 0.5), (2, 3, 0.4)]


def test_a_first_click_after_a_refresh_trains_the_tower_on_an_empty_history():
    config = parse_config(small_config())
    assert trained_on_empty_histories(log_of([*OLD, NEWCOMER]), config)
    assert not trained_on_empty_histories(log_of([*OLD, REGULAR]), config)


@pytest.mark.parametrize(
    ("changes", "knows"),
    [
        ({}, False),
        ({"train": {"target": "rest"}}, True),
        ({"features": {"activity": {"enabled": False}, "history": {"length": 0}}}, False),
    ],
)
def test_without_activity_only_random_parts_of_histories_are_empty(changes, knows):
    settings = {**BY_PLACE, **changes}
    assert (
        trained_on_empty_histories(log_of([*OLD, NEWCOMER]), parse_config(small_config(**settings)))
        is knows
    )


def test_the_list_is_the_baselines_with_shares_of_the_same_hours():
    log = log_of([*OLD, *LATE])
    clicks = Clicks(log.user.numpy(), log.item.numpy() - 1, log.time.numpy(), 4)
    timed = hot_list(log, parse_config(small_config(**BY_PLACE)))
    assert timed.rows.tolist() == RecentHot().fit(clicks, END).rows.tolist() == [2, 0, 1]
    assert timed.scores.tolist() == [
        1.0,
        0.0,
        0.0,
    ]  # of the last hour; the rest follow by all clicks
    plain = hot_list(
        log,
        parse_config(
            small_config(
                **BY_PLACE, split={"kind": "leave_one_out"}, evaluation={"baselines": ["hot"]}
            )
        ),
    )
    assert plain.rows.tolist() == Hot().fit(clicks, END).rows.tolist() == [0, 2, 1]
    np.testing.assert_allclose(plain.scores, [3 / 6, 2 / 6, 1 / 6])


def test_a_tower_trained_on_empty_histories_has_no_list():
    assert hot_list(log_of([*OLD, NEWCOMER]), parse_config(small_config())) is None


def test_answers_of_the_list_are_padded_and_leave_the_others_alone():
    rows, scores = (
        np.array([[0, 1, 2], [3, -1, -1]]),
        np.array([[0.9, 0.8, 0.7], [0.1, -np.inf, -np.inf]], np.float32),
    )
    listed = HotList(np.array([3, 1]), np.array([0.6, 0.4], np.float32))
    new = np.array([False, True])
    got_rows, got_scores = listed.answer(new, rows, scores, Eligible(4))
    assert got_rows.tolist() == [[0, 1, 2], [3, 1, -1]]
    np.testing.assert_allclose(got_scores[1], [0.6, 0.4, -np.inf])
    np.testing.assert_array_equal(got_scores[0], scores[0])


def test_the_list_holds_eligible_items_only_and_the_index_fills_it_up():
    rows, scores = np.array([[0, 1, 2]]), np.array([[0.9, 0.8, 0.7]], np.float32)
    listed = HotList(np.array([3, 1]), np.array([0.6, 0.4], np.float32))
    allowed = Eligible(4, np.array([True, True, True, False]))
    got_rows, got_scores = listed.answer(np.array([True]), rows, scores, allowed)
    assert got_rows.tolist() == [[1, 0, 2]]
    np.testing.assert_allclose(got_scores, [[0.4, 0, 0]])


@pytest.mark.parametrize(
    ("length", "has_list", "wanted"),
    [
        (20, False, ["history", "user", "context", "context"]),
        (20, True, ["history", "user", "hot", "hot"]),
        (0, True, ["hot", "user", "context", "hot"]),
    ],
)
def test_sources_by_hand(length, has_list, wanted):
    """Rows: a history alone, an id alone, a context alone, nothing."""
    known, told, context = (np.array([place == row for row in range(4)]) for place in (1, 0, 2))
    features = Features(history=History(length=length))
    assert answer_sources(features, known, told, context, has_list).tolist() == wanted


def test_the_evaluation_answers_new_users_as_the_server_does(fabricate, finish):
    """User 7 of the test part is new: the list's item stands first for it, and for nobody else."""
    run = fabricate()
    folder = run.step("export_embeddings")
    assert open_hot_list(folder) is None
    pd.DataFrame({"row": [2], "score": [1.0]}).to_parquet(folder / "hot.parquet")
    finish(run, "export_embeddings")
    asked = read_evaluation_data(run).all
    for which in ("served", "exact"):
        with open_served(run) as opened:
            search = opened.search(getattr(opened, which), opened.encode(asked))
            rows = search(0, len(asked.codes), 4, asked.eligible)
        new = asked.codes == 0
        assert new.sum() == 1
        assert rows[new, 0].tolist() == [2]
        assert sorted(rows[new][0]) == [0, 1, 2, 3]
        assert (rows[~new] >= 0).all()
