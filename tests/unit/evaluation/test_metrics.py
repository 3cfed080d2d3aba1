"""Oracles: hand arithmetic for one list, a loop over users for many."""

import math

import numpy as np
import pytest

from dssm_core import metrics

HITS = np.array([[1, 0, 1, 0], [0, 0, 0, 0], [0, 1, 0, 0]], dtype=bool)
COUNTS = np.array([3, 2, 1])


def test_auc_by_hand():
    scores, labels = np.array([3.0, 2.0, 2.0, 1.0]), np.array([1, 1, 0, 0])
    assert metrics.auc(scores, labels) == pytest.approx(
        (2 + 1 + 0.5) / 4
    )  # the pair that ties counts half


def test_gauc_weighs_users_by_rows_and_leaves_out_those_of_one_label():
    users = np.array([5, 5, 5, 8, 8, 9, 9, 9])
    scores = np.array([0.9, 0.1, 0.5, 0.2, 0.2, 7.0, 8.0, 9.0])
    labels = np.array([1, 1, 0, 1, 0, 1, 1, 1])
    # user 5: one pair right, one wrong (1/2), 3 rows; user 8: a tie (1/2), 2 rows; user 9 says
    # nothing
    assert metrics.gauc(scores, labels, users) == pytest.approx(0.5)
    better = np.array([0.9, 0.6, 0.5, 0.2, 0.2, 7.0, 8.0, 9.0])
    assert metrics.gauc(better, labels, users) == pytest.approx((3 * 1 + 2 * 0.5) / 5)
    assert metrics.gauc(scores, np.ones(8, np.int64), users) is None


def test_gauc_is_the_weighted_mean_of_every_users_auc():
    rng = np.random.default_rng(1)
    users, labels = rng.integers(0, 20, 300), rng.integers(0, 2, 300)
    scores = rng.integers(0, 6, 300).astype(float)  # many ties
    told = [user for user in range(20) if len(set(labels[users == user])) == 2]
    aucs = [metrics.auc(scores[users == user], labels[users == user]) for user in told]
    wanted = np.average(aucs, weights=[(users == user).sum() for user in told])
    assert metrics.gauc(scores, labels, users) == pytest.approx(wanted)


def test_log_loss_by_hand():
    assert metrics.log_loss(np.array([0.0, np.log(3)]), np.array([1, 0])) == pytest.approx(
        -(np.log(0.5) + np.log(0.25)) / 2
    )


def test_recall_by_hand():
    assert metrics.recall(HITS, COUNTS, 4).tolist() == [2 / 3, 0, 1]
    assert metrics.recall(HITS, COUNTS, 1).tolist() == [1 / 3, 0, 0]


def test_precision_by_hand():
    assert metrics.precision(HITS, COUNTS, 4).tolist() == [0.5, 0, 0.25]


def test_hit_rate_by_hand():
    assert metrics.hit_rate(HITS, COUNTS, 1).tolist() == [1, 0, 0]
    assert metrics.hit_rate(HITS, COUNTS, 2).tolist() == [1, 0, 1]


def test_average_precision_by_hand():
    # user 0: hits at places 1 and 3 -> (1/1 + 2/3) / min(3, 4); at k = 2: (1/1) / min(3, 2)
    np.testing.assert_allclose(
        metrics.average_precision(HITS, COUNTS, 4), [(1 + 2 / 3) / 3, 0, 0.5]
    )
    np.testing.assert_allclose(metrics.average_precision(HITS, COUNTS, 2), [0.5, 0, 0.5])


def test_ndcg_by_hand():
    best = 1 + 1 / math.log2(3) + 1 / math.log2(4)
    np.testing.assert_allclose(
        metrics.ndcg(HITS, COUNTS, 4), [(1 + 1 / 2) / best, 0, 1 / math.log2(3)]
    )


def test_a_list_shorter_than_k_is_a_list_with_misses():
    for name, metric in metrics.METRICS.items():
        padded = np.pad(HITS, ((0, 0), (0, 6)))
        np.testing.assert_allclose(
            metric(HITS, COUNTS, 10), metric(padded, COUNTS, 10), err_msg=name
        )


def slow(name, retrieved, relevant, k):
    """One user's metric in plain Python."""
    found = [item in relevant for item in retrieved[:k]]
    gains = sum(1 / math.log2(i + 2) for i, hit in enumerate(found) if hit)
    return {
        "recall": sum(found) / len(relevant),
        "precision": sum(found) / k,
        "hit_rate": float(any(found)),
        "map": sum(sum(found[: i + 1]) / (i + 1) for i, hit in enumerate(found) if hit)
        / min(k, len(relevant)),
        "ndcg": gains / sum(1 / math.log2(i + 2) for i in range(min(k, len(relevant)))),
    }[name]


@pytest.mark.parametrize("name", sorted(metrics.METRICS))
@pytest.mark.parametrize("k", [1, 5, 20])
def test_many_users_equal_a_loop(name, k):
    rng = np.random.default_rng(1)
    n_users, n_items = 60, 40
    relevant = [
        set(rng.choice(n_items, rng.integers(1, 9), replace=False).tolist()) for _ in range(n_users)
    ]
    rows = np.argsort(rng.random((n_users, n_items)), axis=1)[:, :20]
    queries, items = map(
        np.array, zip(*[(u, i) for u in range(n_users) for i in relevant[u]], strict=True)
    )
    found = metrics.Relevant.of(queries, items, n_users, n_items)
    values = metrics.METRICS[name](found.hits(rows), found.counts, k)
    np.testing.assert_allclose(
        values, [slow(name, rows[u].tolist(), relevant[u], k) for u in range(n_users)]
    )


def test_unseen_items_count_and_are_missed():
    relevant = metrics.Relevant.of(np.array([0, 0, 1]), np.array([2, -1, -1]), 2, 5)
    hits = relevant.hits(np.array([[2, -1], [-1, -1]]))
    assert hits.tolist() == [[True, False], [False, False]]
    assert metrics.recall(hits, relevant.counts, 2).tolist() == [0.5, 0]


def test_padding_is_never_a_hit_of_the_user_before():
    # query 1, row -1 has the key of query 0's last item
    relevant = metrics.Relevant.of(np.array([0, 1]), np.array([4, 0]), 2, 5)
    assert not relevant.hits(np.array([[0], [-1]])).any()


def test_chunks_equal_the_whole():
    relevant = metrics.Relevant.of(np.array([0, 1, 2]), np.array([1, 2, 0]), 3, 4)
    rows = np.array([[1, 2], [2, 3], [3, 0]])
    np.testing.assert_array_equal(relevant.hits(rows)[1:], relevant.hits(rows[1:], first=1))


def test_coverage_by_hand():
    assert metrics.coverage(np.array([True, False, True, False])) == 0.5


def test_bootstrap_is_seeded_and_near_the_normal_interval():
    values = np.random.default_rng(0).random(4000)
    low, high = metrics.bootstrap(values, 2000, np.random.default_rng(7))
    assert (low, high) == metrics.bootstrap(values, 2000, np.random.default_rng(7))
    half = 1.96 * values.std() / math.sqrt(len(values))
    np.testing.assert_allclose(
        [low, high], [values.mean() - half, values.mean() + half], atol=half * 0.1
    )


def test_bootstrap_of_equal_values_and_of_nothing():
    assert metrics.bootstrap(np.full(9, 0.25), 50, np.random.default_rng(0)) == (0.25, 0.25)
    assert all(map(math.isnan, metrics.bootstrap(np.array([]), 50, np.random.default_rng(0))))
