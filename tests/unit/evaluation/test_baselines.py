"""Planted logs whose lists are known; and the published figure on the Globo clicks."""

import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from dssm_core import families
from dssm_core.columns import DAY_MS, HOUR_MS
from dssm_core.evaluation.baselines.hot import Hot
from dssm_core.evaluation.baselines.protocol import OneList, fill
from dssm_core.evaluation.baselines.recent_hot import RecentHot
from dssm_core.evaluation.fitting import fit_baselines
from dssm_core.features.histories import Histories
from dssm_core.features.popularity import Clicks, WarmDay, popular, recent, top

CUTOFF = 3 * DAY_MS


def log(*events, n_items=6):
    users, items, hours_before = np.array(events).T
    return Clicks(
        users.astype(np.int64),
        items.astype(np.int64),
        (CUTOFF - hours_before * HOUR_MS).astype(np.int64),
        n_items,
    )


def test_top_orders_by_counts_then_the_next_then_the_row():
    assert top(4, np.array([2, 5, 2, 0, 2]), np.array([0, 0, 3, 0, 0])).tolist() == [1, 2, 0, 4]


def test_hot_counts_the_whole_window():
    clicks = log((0, 1, 50), (1, 1, 40), (2, 1, 30), (0, 2, 1), (1, 2, 1), (2, 3, 1))
    assert Hot().fit(clicks, CUTOFF).rows.tolist() == [1, 2, 3]


def test_one_list_is_cut_and_padded_for_everybody():
    three = Histories.of(np.array([0, 2]), np.array([4, 1]), 3)
    assert OneList(np.array([5, 1, 2])).lists(three, 2).tolist() == [[5, 1]] * 3
    assert OneList(np.array([5, 1, 2])).lists(three, 4).tolist() == [[5, 1, 2, -1]] * 3


def test_popular_orders_by_clicks_then_row():
    assert popular(log((0, 3, 9), (1, 3, 8), (0, 4, 7), (0, 1, 6))).tolist() == [3, 1, 4]


def test_short_lists_go_on_with_popular_items_that_they_lack():
    lists = np.array([[7, 3, -1, -1], [-1, -1, -1, -1], [1, 2, 3, 4], [9, -1, -1, -1]])
    assert fill(lists, np.array([3, 1, 7, 5, 2])).tolist() == [
        [7, 3, 1, 5],
        [3, 1, 7, 5],
        [1, 2, 3, 4],
        [9, 3, 1, 7],
    ]
    assert fill(lists, np.array([3])).tolist() == [
        [7, 3, -1, -1],
        [3, -1, -1, -1],
        [1, 2, 3, 4],
        [9, 3, -1, -1],
    ]
    assert fill(lists, np.array([], dtype=np.int64)).tolist() == lists.tolist()


def test_recent_counts_the_last_hours_and_fills_with_the_rest():
    clicks = log((0, 1, 50), (1, 1, 40), (2, 1, 30), (0, 2, 1), (1, 2, 1), (2, 3, 1))
    assert recent(clicks, CUTOFF, 2, 5).tolist() == [2, 3, 1]


def test_a_click_exactly_a_window_ago_counts_and_one_at_the_moment_does_not():
    clicks = log((0, 1, 2), (0, 2, 0), (1, 2, 0))
    assert recent(clicks.between(0, CUTOFF), CUTOFF, 2, 5).tolist() == [1]


def test_the_window_is_the_one_that_won_on_the_last_day():
    # A day before the cutoff item 1 was the last hour's, item 2 (with more clicks) that of 20 hours
    # before. # On the last day users 0 and 1 clicked the item of the short (or the long) window.
    past = [(0, 1, 24.5), (1, 2, 40), (2, 2, 40), (0, 2, 44)]
    short, long = ([(user, item, 10) for user in (0, 1)] for item in (1, 2))
    member = RecentHot(windows_h=(1, 24), places=1)
    assert member.fit(log(*past, *short), CUTOFF).info == {
        "window_h": 1,
        "validation": {"1h": 1.0, "24h": 0.0},
    }
    assert member.fit(log(*past, *long), CUTOFF).info == {
        "window_h": 24,
        "validation": {"1h": 0.0, "24h": 1.0},
    }


def test_the_choice_is_by_recall_in_the_first_places():
    past = [(0, 1, 24.5), (1, 2, 40), (2, 2, 40), (0, 2, 44)]
    found = RecentHot(windows_h=(1, 24), places=2).fit(log(*past, (0, 2, 10)), CUTOFF).info
    assert found["validation"] == {
        "1h": 1.0,
        "24h": 1.0,
    }  # both items are in either list's first two


def test_warm_recall_by_hand():
    past = log((0, 1, 60), (1, 2, 60), (1, 3, 60))
    # user 0: items 1 (twice) and 2 -> 1 of 2 found; user 1: item 3 -> not found; user 9 and item 5
    # are new
    day = log((0, 1, 3), (0, 1, 2), (0, 2, 2), (1, 3, 2), (9, 1, 2), (1, 5, 1))
    warm = WarmDay.of(past, day)
    assert warm.recall(np.array([1, 4])) == pytest.approx((0.5 + 0) / 2)
    assert WarmDay.of(past, log((9, 1, 2))).recall(np.array([1])) == 0


def test_the_clicks_of_some_hours_are_not_copied_from_a_log_by_time():
    clicks = Clicks(np.arange(6), np.arange(6), np.array([1, 2, 3, 4, 5, 6]), 6)
    part = clicks.between(2, 5)
    assert part.users.tolist() == [1, 2, 3]
    assert np.shares_memory(part.users, clicks.users)
    mixed = Clicks(np.arange(4), np.arange(4), np.array([3, 1, 2, 9]), 4)
    assert mixed.between(2, 9).items.tolist() == [0, 2]
    assert mixed.before(0).items.tolist() == []


@pytest.mark.data
@pytest.mark.skipif("DSSM_DATA" not in os.environ, reason="DSSM_DATA names no folder of real logs")
def test_globo_figures():
    """Test day 2017-10-07 in America/Sao_Paulo: hot 0.2768; the last hour 0.5141 (less or more by
    the order of ties).
    """
    files = sorted(Path(os.environ["DSSM_DATA"], "globo", "clicks").glob("*.csv.gz"))
    columns = ["user_id", "click_article_id", "click_timestamp"]
    frame = pd.concat([pd.read_csv(file, usecols=columns) for file in files[: 8 * 24]])
    cutoff = pd.Timestamp("2017-10-07", tz="America/Sao_Paulo").value // 1_000_000
    frame = frame[frame.click_timestamp.between(cutoff - 6 * DAY_MS, cutoff + DAY_MS - 1)]
    users, items = (pd.factorize(frame[name])[0] for name in columns[:2])
    clicks = Clicks(users, items, frame.click_timestamp.to_numpy(), items.max() + 1)
    train, test = clicks.between(0, cutoff), clicks.between(cutoff, cutoff + DAY_MS)
    day = WarmDay.of(train, test)
    assert day.recall(Hot().fit(train, cutoff).rows[:200]) == pytest.approx(0.2768, abs=5e-4)
    ranking = RecentHot().fit(train, cutoff)
    for hours, wanted in {1: 0.5141, 3: 0.4314, 6: 0.4298, 24: 0.3955}.items():
        assert day.recall(recent(train, cutoff, hours, 200)) == pytest.approx(wanted, abs=5e-3)
    assert ranking.info["window_h"] == 3  # the day before, three hours were the best by a little


class Drawing:
    """A member that keeps the seed with which it was fitted."""

    def fit(self, clicks, as_of_ms, seed=0):
        return OneList(np.array([seed]))

    def variants(self, clicks, as_of_ms):
        return {}


def test_baselines_follow_the_seed_of_the_run(fabricate, monkeypatch):
    config = fabricate().config
    monkeypatch.setattr(families, "build", lambda family, member: Drawing())
    none = np.zeros(0, dtype=np.int64)
    for seed, passed in ((42, 0), (43, 1), (41, 2**32 - 1)):
        of_seed = config.model_copy(update={"seed": seed})
        fitted = fit_baselines(of_seed, Clicks(none, none, none, 1), 0)["hot"].fitted
        assert fitted.rows.tolist() == [passed]
