"""Every baseline of the family keeps the Protocol."""

import json

import numpy as np
import pytest

from dssm_core import families
from dssm_core.columns import DAY_MS
from dssm_core.config import Member
from dssm_core.families import BASELINES
from dssm_core.features.histories import Histories
from dssm_core.features.popularity import Clicks


@pytest.fixture(params=sorted(BASELINES))
def member(request):
    return families.build(BASELINES, Member(kind=request.param))


def clicks(n=3000, n_items=50, seed=0):
    rng = np.random.default_rng(seed)
    return Clicks(
        rng.integers(0, 80, n),
        rng.zipf(1.5, n) % n_items,
        np.sort(rng.integers(0, 6 * DAY_MS, n)),
        n_items,
    )


def asked(n_items=50, seed=1):
    """Five queries with repeats; the first has no history."""
    rng = np.random.default_rng(seed)
    return Histories.of(rng.integers(1, 5, 60), rng.zipf(1.5, 60) % n_items, 5)


def test_distinct_known_rows_in_full_lists(member):
    rows = member.fit(clicks(), 6 * DAY_MS).lists(asked(), 20)
    assert rows.shape == (5, 20)
    assert rows.dtype == np.int64
    assert ((rows >= 0) & (rows < 50)).all()
    assert all(len(np.unique(row)) == 20 for row in rows)


def test_never_looks_past_the_moment(member):
    log, moment = clicks(), 4 * DAY_MS
    later = Clicks(
        log.users, np.where(log.times_ms >= moment, 49, log.items), log.times_ms, log.n_items
    )
    one, other = (member.fit(known, moment) for known in (log, later))
    np.testing.assert_array_equal(one.lists(asked(), 20), other.lists(asked(), 20))
    assert one.info == other.info


def test_times_before_1970_count_like_others(member):
    log = clicks()
    moment = 5 * DAY_MS
    shift = 60 * 366 * DAY_MS
    earlier = Clicks(log.users, log.items, log.times_ms - shift, log.n_items)
    now, then = member.fit(log, moment), member.fit(earlier, moment - shift)
    np.testing.assert_array_equal(then.lists(asked(), 20), now.lists(asked(), 20))
    assert then.info == now.info
    for name, rows in member.variants(log, moment).items():
        np.testing.assert_array_equal(member.variants(earlier, moment - shift)[name], rows)


def test_never_clicked_is_never_ranked(member):
    log = clicks(n=40, n_items=500)
    rows = member.fit(log, 6 * DAY_MS).lists(asked(n_items=500), 200)
    known = set(log.items.tolist())
    assert all(set(row.tolist()) == known | {-1} for row in rows)
    assert all((row[: len(known)] >= 0).all() for row in rows), "a list is padded at its end only"


def test_a_query_is_answered_alike_alone(member):
    fitted, queries = member.fit(clicks(), 6 * DAY_MS), asked()
    alone = [fitted.lists(queries.part(query, query + 1), 20) for query in range(5)]
    np.testing.assert_array_equal(fitted.lists(queries, 20), np.concatenate(alone))


def test_equal_clicks_give_equal_lists(member):
    one, other = (member.fit(clicks(), 6 * DAY_MS).lists(asked(), 20) for _ in range(2))
    np.testing.assert_array_equal(one, other)


def test_no_clicks_no_list(member):
    empty = np.array([], dtype=np.int64)
    assert (
        member.fit(Clicks(empty, empty, empty, 5), DAY_MS).lists(asked(n_items=5), 10) == -1
    ).all()
    assert member.fit(clicks(), 6 * DAY_MS).lists(Histories.of(empty, empty, 0), 10).shape == (
        0,
        10,
    )


def test_info_is_plain_json(member):
    fitted = member.fit(clicks(), 6 * DAY_MS)
    assert json.loads(json.dumps(fitted.info, allow_nan=False)) == fitted.info
