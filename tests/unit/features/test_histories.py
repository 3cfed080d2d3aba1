import numpy as np

from dssm_core.features.histories import Histories


def test_contains():
    past = Histories.of(np.array([0, 0, 2]), np.array([3, 1, 0]), 3)
    rows = np.array([[1, 2, 3, 0], [3, -1, -1, -1], [0, -1, 2, 99]])
    wanted = [[True, False, True, False], [False] * 4, [True, False, False, False]]
    assert past.contains(rows).tolist() == wanted
    assert Histories.empty(1).contains(np.array([[1, 0]])).tolist() == [[False, False]]


def test_followed_by_joins_each_query():
    one = Histories.of(np.array([0, 1]), np.array([5, 6]), 2)
    both = one.followed_by(Histories.of(np.array([1, 0, 1]), np.array([1, 2, 3]), 2))
    assert both.ptr.tolist() == [0, 2, 5]
    assert both.items.tolist() == [5, 2, 6, 1, 3]


def test_events_are_grouped_by_query_and_keep_their_order():
    found = Histories.of(np.array([2, 0, 2, 0, 2]), np.array([5, 1, 6, 2, 5]), 3)
    assert found.ptr.tolist() == [0, 2, 2, 5]
    assert found.items.tolist() == [1, 2, 5, 6, 5]
    assert found.counts.tolist() == [2, 0, 3]
    assert found.query.tolist() == [0, 0, 2, 2, 2]


def test_part_and_latest():
    found = Histories.of(np.array([0, 0, 0, 1, 2, 2]), np.arange(6), 3)
    assert found.part(1, 3).ptr.tolist() == [0, 1, 3]
    assert found.part(1, 3).items.tolist() == [3, 4, 5]
    assert found.latest(2).items.tolist() == [1, 2, 3, 4, 5]
    assert found.latest(2).ptr.tolist() == [0, 2, 3, 5]


def test_take_reorders_and_repeats():
    found = Histories.of(np.array([0, 0, 0, 2, 2]), np.arange(5), 3).take(np.array([2, 1, 0, 2]))
    assert found.ptr.tolist() == [0, 2, 2, 5, 7]
    assert found.items.tolist() == [3, 4, 0, 1, 2, 3, 4]
    assert len(found.take(np.array([], dtype=np.int64))) == 0


def test_events_with_the_first_items_only():
    found = Histories.of(np.array([0, 0, 1, 2]), np.array([3, 1, 2, 0]), 4).having(2)
    assert found.ptr.tolist() == [0, 1, 1, 2, 2]
    assert found.items.tolist() == [1, 0]
