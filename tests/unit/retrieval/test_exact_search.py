"""Exact search against one product of all vectors and a full sort."""

import numpy as np
import pytest

from dssm_core.retrieval import exact_search as module
from dssm_core.retrieval.exact_search import exact_search, top_k


def vectors(n, seed, width=8):
    return np.random.default_rng(seed).standard_normal((n, width)).astype(np.float32)


def sorted_wholly(scores, k):
    order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    return order, np.take_along_axis(scores, order, 1)


@pytest.mark.parametrize(("n", "k"), [(1, 1), (7, 7), (100, 3), (331, 20), (331, 330), (5000, 200)])
def test_the_largest_scores_of_each_row(n, k):
    scores = np.random.default_rng(n).standard_normal((9, n)).astype(np.float32)
    places, found = top_k(scores, k)
    wanted, best = sorted_wholly(scores, k)
    np.testing.assert_array_equal(places, wanted)
    np.testing.assert_array_equal(found, best)


@pytest.mark.parametrize("distinct", [1, 2, 5])
def test_equal_scores_are_listed_by_position(distinct):
    scores = np.random.default_rng(0).integers(0, distinct, (4, 500)).astype(np.float32)
    np.testing.assert_array_equal(top_k(scores, 60)[0], sorted_wholly(scores, 60)[0])


def test_sorted_scores_which_fill_one_slab_first():
    scores = np.sort(vectors(3, 1, 700), axis=1)
    for rows in (scores, scores[:, ::-1]):
        np.testing.assert_array_equal(top_k(rows, 40)[0], sorted_wholly(rows, 40)[0])


@pytest.mark.parametrize("share", [None, 0.01, 0.1, 0.5, 0.9, 1.0])
def test_blocks_equal_one_product(monkeypatch, share):
    monkeypatch.setattr(module, "ITEMS_AT_ONCE", 100)
    monkeypatch.setattr(module, "QUERIES_AT_ONCE", 4)
    items, queries = vectors(730, 0), vectors(10, 1)
    allowed = None if share is None else np.random.default_rng(2).random(730) < share
    rows, scores = exact_search(items, queries, 30, allowed)
    products = queries @ items.T
    if allowed is not None:
        products[:, ~allowed] = -np.inf
    wanted, best = sorted_wholly(products, 30)
    np.testing.assert_array_equal(rows, np.where(np.isinf(best), -1, wanted))
    np.testing.assert_allclose(scores, best, atol=1e-5)


def test_fewer_items_than_asked_for():
    items, queries = vectors(5, 0), vectors(2, 1)
    allowed = np.array([False, True, False, True, False])
    rows, scores = exact_search(items, queries, 9, allowed)
    assert rows.shape == (2, 5)
    assert np.sort(rows, axis=1).tolist() == [[-1, -1, -1, 1, 3]] * 2
    assert np.isinf(scores[:, 2:]).all()
    rows, _ = exact_search(items, queries, 3, np.zeros(5, np.bool_))
    assert rows.tolist() == [[-1] * 3] * 2


def test_no_queries_and_a_query_that_is_not_a_number():
    items = vectors(50, 0)
    assert exact_search(items, vectors(0, 1), 3)[0].shape == (0, 3)
    queries = vectors(2, 1)
    queries[0, 0] = np.nan
    rows, _ = exact_search(items, queries, 3)
    assert rows[0].tolist() == [-1] * 3
    assert (rows[1] >= 0).all()
