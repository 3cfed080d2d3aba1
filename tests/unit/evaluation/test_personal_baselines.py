"""Item-to-item, linear and factor baselines against brute force on small logs."""

import itertools
import math
import warnings

import numpy as np
import pytest
from pydantic import ValidationError
from scipy import sparse

from dssm_core.errors import DataError
from dssm_core.evaluation.baselines import scores
from dssm_core.evaluation.baselines.als import Als
from dssm_core.evaluation.baselines.ease import Ease
from dssm_core.evaluation.baselines.itemcf import ItemCf
from dssm_core.evaluation.baselines.scores import Neighbours, best, best_of_sparse, blocks, recency
from dssm_core.evaluation.baselines.swing import Swing, sample_users
from dssm_core.features.histories import Histories
from dssm_core.features.popularity import Clicks

MINUTE = 60_000
END = 10**9
USERS, ITEMS = 9, 12


@pytest.fixture(scope="module")
def log():
    """90 clicks with repeats, a minute apart, of users whose codes are not 0..8; item 11 is never
    clicked.
    """
    rng = np.random.default_rng(3)
    return Clicks(
        rng.integers(0, USERS, 90) * 7 + 4,
        rng.integers(0, ITEMS - 1, 90),
        np.arange(90) * MINUTE,
        ITEMS,
    )


def sequences(log):
    """Each user's (item, time) in time order."""
    return [
        [(i, t) for u, i, t in zip(log.users, log.items, log.times_ms, strict=True) if u == user]
        for user in np.unique(log.users)
    ]


def brute_itemcf(log, weight=lambda n: 1 / math.log(1 + n), pairs=None, power=0.5):
    """pairs(sequence) yields (i, j, weight); none is each unordered pair of a user's distinct
    items, both ways.
    """
    total, count = np.zeros((ITEMS, ITEMS)), np.zeros(ITEMS)
    for sequence in sequences(log):
        own = {item for item, _ in sequence}
        count[list(own)] += 1
        for i, j, w in (
            pairs(sequence) if pairs else ((i, j, 1) for i, j in itertools.permutations(own, 2))
        ):
            total[i, j] += w * weight(len(own))
    np.fill_diagonal(total, 0)
    count = np.maximum(count, 1)
    return total / count[:, None] ** 0.5 / count[None, :] ** power


def windowed(window, decay=1.0, directed=False, gap_min=math.inf):
    def pairs(sequence):
        for (a, (i, s)), (b, (j, t)) in itertools.combinations(enumerate(sequence), 2):
            if b - a <= window and t - s <= gap_min * MINUTE:
                yield i, j, decay ** (b - a - 1)
                if not directed:
                    yield j, i, decay ** (b - a - 1)

    return pairs


@pytest.mark.parametrize(
    ("settings", "wanted"),
    [
        ({}, {}),
        ({"weighting": "cosine"}, {"weight": lambda n: 1}),
        ({"popularity": 0.2}, {"power": 0.2}),
        ({"window": 3}, {"pairs": windowed(3)}),
        ({"window": 3, "distance_decay": 0.5}, {"pairs": windowed(3, 0.5)}),
        ({"window": 4, "directed": True}, {"pairs": windowed(4, directed=True)}),
        ({"window": 4, "max_gap_min": 20}, {"pairs": windowed(4, gap_min=20)}),
        ({"window": 1000, "weighting": "cosine"}, {"pairs": windowed(1000), "weight": lambda n: 1}),
    ],
    ids=",".join,
)
def test_itemcf_is_what_loops_say(log, settings, wanted):
    found = ItemCf(**settings).fit(log, END).similar.toarray()
    np.testing.assert_allclose(found, brute_itemcf(log, **wanted), rtol=1e-12)


def test_itemcf_in_small_blocks_is_the_same(log, monkeypatch):
    whole = [ItemCf(**settings).fit(log, END).similar.toarray() for settings in ({}, {"window": 3})]
    monkeypatch.setattr(scores, "CELLS", 5 * ITEMS)
    for settings, wanted in zip(({}, {"window": 3}), whole, strict=True):
        np.testing.assert_array_equal(ItemCf(**settings).fit(log, END).similar.toarray(), wanted)


def test_clicks_out_of_order_are_put_in_time_order(log):
    shuffled = np.random.default_rng(0).permutation(90)
    mixed = Clicks(log.users[shuffled], log.items[shuffled], log.times_ms[shuffled], ITEMS)
    member = ItemCf(window=2, directed=True)
    np.testing.assert_array_equal(
        member.fit(mixed, END).similar.toarray(), member.fit(log, END).similar.toarray()
    )


def test_a_repeated_click_counts_once_without_a_window(log):
    twice = Clicks(
        *(np.concatenate([column, column]) for column in (log.users, log.items, log.times_ms)),
        ITEMS,
    )
    for member in (ItemCf(), Swing()):
        np.testing.assert_allclose(
            member.fit(twice, END).similar.toarray(), member.fit(log, END).similar.toarray()
        )
    np.testing.assert_allclose(Ease().fit(twice, END).weights, Ease().fit(log, END).weights)


def test_only_the_nearest_neighbours_are_kept(log):
    full, kept = (ItemCf(neighbours=n).fit(log, END).similar.toarray() for n in (200, 3))
    for all_of, some in zip(full, kept, strict=True):
        assert sorted(some[some > 0]) == pytest.approx(sorted(all_of[all_of > 0])[-3:])
        assert (some[some > 0] == all_of[some > 0]).all()


@pytest.mark.parametrize(
    "settings", [{"directed": True}, {"distance_decay": 0.5}, {"max_gap_min": 30}]
)
def test_what_is_about_pairs_needs_a_window(settings):
    with pytest.raises(
        ValidationError,
        match=f"{next(iter(settings))} needs window: set it too",
    ):
        ItemCf(**settings)


def brute_swing(log, alpha):
    owned = [{item for item, _ in sequence} for sequence in sequences(log)]
    total = np.zeros((ITEMS, ITEMS))
    for u, v in itertools.combinations(owned, 2):
        for i, j in itertools.permutations(u & v, 2):
            total[i, j] += 1 / math.sqrt(len(u) * len(v)) / (alpha + len(u & v))
    return total


@pytest.mark.parametrize("alpha", [0.0, 1.0, 5.0])
def test_swing_is_what_loops_say(log, alpha):
    np.testing.assert_allclose(
        Swing(alpha=alpha).fit(log, END).similar.toarray(), brute_swing(log, alpha), rtol=1e-12
    )


def test_swing_takes_some_of_an_items_users(log):
    per_user = scores.distinct(scores.click_matrix(log))
    starts, users = sample_users(per_user, 3, 0)
    for item in range(ITEMS):
        drawn, owners = (
            users[starts[item] : starts[item + 1]],
            set(per_user[:, [item]].nonzero()[0]),
        )
        assert len(drawn) == len(set(drawn)) == min(3, len(owners))
        assert set(drawn) <= owners
    one, same, other = (
        Swing(users_per_item=3, seed=seed).fit(log, END).similar.toarray() for seed in (0, 0, 1)
    )
    np.testing.assert_array_equal(one, same)
    assert (one != other).any()


def test_neighbours_by_hand():
    similar = sparse.csr_matrix(
        np.array(
            [[0, 4, 0, 2, 0], [1, 0, 0, 0, 0], [0, 1, 0, 7, 0], [0, 0, 0, 0, 0], [0, 0, 0, 0, 0.0]]
        )
    )
    fitted = Neighbours(similar, length=2, decay=0.5, popular=np.array([3, 4, 0]))
    # query 0: 2 is the newest, then 0 (its later click); 1 is too old. Item 3: 7 + 0.5 * 2, item 1:
    # 1 + 0.5 * 4
    histories = Histories.of(np.array([0, 0, 0, 0, 2]), np.array([0, 1, 0, 2, 3]), 3)
    assert fitted.lists(histories, 3).tolist() == [[3, 1, 4], [3, 4, 0], [3, 4, 0]]


@pytest.mark.parametrize("member", [ItemCf, Swing, Als, Ease], ids=lambda member: member.__name__)
def test_length_and_decay_of_the_history_have_an_effect(member, log):
    asked = Histories.of(np.zeros(5, np.int64), np.array([0, 3, 5, 7, 9]), 1)
    lists = [
        member(**settings).fit(log, END).lists(asked, 11).tolist()
        for settings in ({}, {"history": 1}, {"decay": 1})
    ]
    assert lists[0] != lists[1]
    assert lists[0] != lists[2]
    newest = Histories.of(np.zeros(1, np.int64), np.array([9]), 1)
    assert member(history=1).fit(log, END).lists(newest, 11).tolist() == lists[1]


def test_recency_by_hand():
    histories = Histories.of(np.array([0, 0, 0, 0, 2, 2]), np.array([4, 1, 4, 3, 0, 0]), 3)
    found = recency(histories, 5, length=2, decay=0.5).toarray()
    assert found.tolist() == [[0, 0, 0, 1, 0.5], [0, 0, 0, 0, 0], [1, 0, 0, 0, 0]]
    assert recency(histories, 5, length=9, decay=0.5).toarray()[0].tolist() == [0, 0.25, 0, 1, 0.5]


def test_best_is_a_stable_sort():
    table = np.random.default_rng(0).integers(0, 6, (40, 30)).astype(float)
    table[table == 0] = -np.inf
    for k in (1, 7, 29, 30, 35):
        order = np.argsort(-table, axis=1, kind="stable")
        wanted = np.where(np.isneginf(np.take_along_axis(table, order, 1)), -1, order)
        wanted = np.pad(wanted, ((0, 0), (0, max(0, k - 30))), constant_values=-1)[:, :k]
        assert best(table, k).tolist() == wanted.tolist()


def test_best_of_sparse_leaves_out_what_is_not_above_0():
    matrix = sparse.csr_matrix(
        ([1.0, 0.0, 3.0, 1.0, -2.0], [3, 0, 2, 1, 4], [0, 4, 4, 5]), shape=(3, 5)
    )
    rows, values = best_of_sparse(matrix, 4)
    assert rows.tolist() == [[2, 1, 3, -1], [-1] * 4, [-1] * 4]
    assert values.tolist() == [[3, 1, 1, 0], [0] * 4, [0] * 4]


def test_blocks_cover_everything_once():
    assert list(blocks(10, scores.CELLS // 4)) == [(0, 4), (4, 8), (8, 10)]
    assert list(blocks(3, scores.CELLS * 9)) == [(0, 1), (1, 2), (2, 3)]
    assert list(blocks(0, 5)) == []


def test_ease_solves_its_least_squares(log):
    """Steck's closed form against the plain problem: each column is a ridge regression on the other
    columns.
    """
    fitted = Ease(regularization=2.0).fit(log, END)
    assert fitted.items.tolist() == list(range(ITEMS - 1))
    x = scores.distinct(scores.click_matrix(log)).toarray()[:, fitted.items]
    for j in range(x.shape[1]):
        others = np.delete(np.arange(x.shape[1]), j)
        ridge = np.linalg.solve(
            x[:, others].T @ x[:, others] + 2.0 * np.eye(len(others)), x[:, others].T @ x[:, j]
        )
        np.testing.assert_allclose(fitted.weights[others, j], ridge, rtol=1e-8)
        assert fitted.weights[j, j] == 0


def test_ease_ranks_by_weighted_history(log):
    fitted = Ease(regularization=2.0, history=2, decay=0.5).fit(log, END)
    wanted = np.argsort(-(fitted.weights[6] + 0.5 * fitted.weights[2]))
    assert fitted.lists(Histories.of(np.array([0, 0, 0]), np.array([9, 2, 6]), 1), 11).tolist() == [
        wanted.tolist()
    ]


def test_ease_refuses_what_would_not_fit():
    clicks = Clicks(
        np.arange(400), np.arange(400), np.arange(400), 10**6
    )  # 400 squared * 8 bytes = 0.0012 GiB
    with pytest.raises(
        DataError,
        match=r"ease needs 0\.0 GiB for each matrix of 400 x 400 items,"
        r" and max_gib is 0\.001: raise",
    ):
        Ease(max_gib=0.001).fit(clicks, END)
    assert Ease(max_gib=0.002).fit(clicks, END).weights.shape == (400, 400)


def two_circles():
    """Users 0-9 click items 0-5, users 10-19 items 6-10, each leaving one out."""
    pairs = [
        (user, item)
        for user in range(20)
        for item in (range(6) if user < 10 else range(6, 11))
        if item != user % 6
    ]
    users, items = np.array(pairs).T
    return Clicks(users, items, np.arange(len(pairs)), ITEMS)


@pytest.mark.parametrize(
    "member",
    [Als(factors=2), Ease(regularization=1.0), ItemCf(), Swing()],
    ids=lambda member: type(member).__name__,
)
def test_a_new_user_is_shown_her_circle_first(member):
    lists = member.fit(two_circles(), END).lists(
        Histories.of(np.array([0, 0, 1, 1]), np.array([0, 1, 7, 8]), 2), 11
    )
    assert {2, 3, 4, 5} <= set(lists[0, :6].tolist()) <= set(range(6))
    assert {6, 9, 10} <= set(lists[1, :5].tolist()) <= set(range(6, 11))


def test_als_vector_is_the_least_squares_answer(log):
    member = Als(factors=5, alpha=3.0, regularization=0.5, history=2, decay=0.5)
    fitted = member.fit(log, END)
    y = fitted.model.item_factors.astype(float)
    confidence = np.ones(ITEMS)
    confidence[[6, 2]] += 3.0 * np.array([1, 0.5])
    wanted = np.linalg.solve(
        (y.T * confidence) @ y + 0.5 * np.eye(5), y.T @ np.where(confidence > 1, confidence, 0)
    )
    order = np.argsort(-(y @ wanted)[: ITEMS - 1])
    assert fitted.lists(Histories.of(np.array([0, 0, 0]), np.array([9, 2, 6]), 1), 11).tolist() == [
        order.tolist()
    ]


def test_als_settings_have_an_effect(log):
    base = Als().fit(log, END).model.item_factors
    for settings in (
        {"regularization": 5.0},
        {"alpha": 1.0},
        {"iterations": 1},
        {"seed": 1},
        {"factors": 3},
    ):
        other = Als(**settings).fit(log, END).model.item_factors
        assert other.shape != base.shape or not np.allclose(other, base)
    np.testing.assert_array_equal(
        Als(threads=1).fit(log, END).model.item_factors,
        Als(threads=2).fit(log, END).model.item_factors,
    )


def test_als_is_silent(log, capfd):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fitted = Als().fit(log, END)
        fitted.lists(Histories.of(np.array([0]), np.array([1]), 1), 5)
    assert capfd.readouterr() == ("", "")
