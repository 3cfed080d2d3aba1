"""Lists hold k eligible items whenever there are k, whatever the index."""

from itertools import chain

import numpy as np
import pytest

from dssm_core import families
from dssm_core.config import Member
from dssm_core.families import INDEXES
from dssm_core.features.histories import Histories
from dssm_core.retrieval.eligible import Eligible, eligible_lists
from dssm_core.retrieval.filter_trials import try_filters
from dssm_core.retrieval.item_index import ItemIndex, build_item_index

N = 1500


def unit(n, seed):
    vectors = np.random.default_rng(seed).normal(size=(n, 8)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def excluded(lists):
    query = np.repeat(np.arange(len(lists)), [len(rows) for rows in lists])
    return Histories.of(query, np.array([*chain(*lists)], dtype=np.int64), len(lists))


def brute_force(vectors, queries, k, allowed, left_out):
    scores = queries @ vectors.T
    scores[:, ~allowed] = -np.inf
    for query, rows in enumerate(left_out):
        scores[query, rows] = -np.inf
    rows = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    return np.where(np.take_along_axis(scores, rows, 1) > -np.inf, rows, -1)


@pytest.mark.parametrize("kind", sorted(INDEXES))
@pytest.mark.parametrize("exact_below", [0, N])
@pytest.mark.parametrize("share", [0.004, 0.1, 1])
def test_lists_are_full_whenever_there_are_enough_items(kind, exact_below, share):
    vectors, queries = unit(N, 0), unit(6, 1)
    rng = np.random.default_rng(2)
    allowed = rng.random(N) < share
    left_out = [rng.integers(0, N, n).tolist() for n in (0, 1, 3, 50, 400, 1200)]
    member = families.build(INDEXES, Member(kind=kind))
    built = build_item_index(member, vectors, 0)
    index = ItemIndex(member, built.index, vectors, exact_below)
    eligible = Eligible(N, allowed, excluded(left_out))
    rows, scores = index.search(queries, 20, eligible)
    wanted = brute_force(vectors, queries, 20, allowed, left_out)
    assert ((rows >= 0).sum(1) == (wanted >= 0).sum(1)).all()
    for query, listed in enumerate(rows):
        listed = listed[listed >= 0]
        assert allowed[listed].all()
        assert not set(listed) & set(left_out[query])
        assert len(set(listed)) == len(listed)
    assert (scores[:, 1:] <= scores[:, :-1] + 1e-6).all()
    if exact_below == N or index.finds_all:
        np.testing.assert_array_equal(rows, wanted)


def test_counts_are_distinct_and_among_the_allowed():
    allowed = np.array([True, True, False, True])
    eligible = Eligible(4, allowed, excluded([[0, 0, 2], [], [0, 1, 3]]))
    assert eligible.counts(3).tolist() == [2, 3, 0]
    assert Eligible(4).counts(2).tolist() == [4, 4]


def test_an_index_of_the_first_items_may_list_those_only():
    allowed = np.array([True, True, False, True])
    fewer = Eligible(4, allowed, excluded([[0, 3], [3], [1, 2]])).among_first(3)
    assert fewer.counts(3).tolist() == [1, 2, 1]
    assert fewer.allowed.tolist() == [True, True, False]
    rows = np.array([[0, 1, 2]] * 3)
    kept, _ = fewer.keep(rows, np.zeros(rows.shape))
    assert kept.tolist() == [[1, -1, -1], [0, 1, -1], [0, -1, -1]]
    assert Eligible(4).among_first(3).everything


def test_a_ranking_is_asked_for_more_until_the_lists_are_full():
    asked = []

    def search(n):
        asked.append(n)
        rows = np.arange(100)[None, :n]
        return rows, np.zeros(rows.shape, np.float32)

    allowed = np.zeros(100, dtype=np.bool_)
    allowed[[3, 60, 80]] = True
    rows, _ = eligible_lists(search, Eligible(100, allowed), 4)
    assert rows.tolist() == [[3, 60, 80, -1]]
    assert asked == [4, 16, 64, 100]


def test_an_index_that_finds_too_little_is_replaced_by_exact_search_among_few():
    """One probe of 256 cells misses most of the eligible items."""
    vectors, queries = unit(20_000, 0), unit(100, 1)
    member = families.build(INDEXES, Member(kind="faiss_ivf", nprobe=1))
    built = build_item_index(member, vectors, 0)
    chosen, trials = try_filters(built, queries, seed=0)
    assert chosen.exact_below > 10_000
    assert [(trial.share, trial.items) for trial in trials] == [
        (share, items) for share in (0.01, 0.1, 0.5) for items in ("random", "similar")
    ]
    assert all(trial.recall >= 0.98 and trial.exact for trial in trials)
