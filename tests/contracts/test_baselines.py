"""Every baseline of the family keeps the Protocol."""

import numpy as np
import pytest

from dssm_core import families
from dssm_core.baselines import BASELINES
from dssm_core.baselines.protocol import Clicks
from dssm_core.config import Member
from dssm_core.schema import DAY_MS


@pytest.fixture(params=sorted(BASELINES))
def member(request):
    return families.build(BASELINES, Member(kind=request.param))


def clicks(n=3000, n_items=50, seed=0):
    rng = np.random.default_rng(seed)
    return Clicks(rng.integers(0, 80, n), rng.zipf(1.5, n) % n_items, rng.integers(0, 6 * DAY_MS, n), n_items)


def test_distinct_known_rows_at_most_k(member):
    rows = member.rank(clicks(), 6 * DAY_MS, 20).rows
    assert len(rows) == len(np.unique(rows)) == 20
    assert rows.dtype == np.int64
    assert ((rows >= 0) & (rows < 50)).all()


def test_never_looks_past_the_moment(member):
    log, moment = clicks(), 4 * DAY_MS
    later = Clicks(log.users, np.where(log.times_ms >= moment, 49, log.items), log.times_ms, log.n_items)
    np.testing.assert_array_equal(member.rank(log, moment, 20).rows, member.rank(later, moment, 20).rows)


def test_never_clicked_is_never_ranked(member):
    log = clicks(n=40, n_items=500)
    rows = member.rank(log, 6 * DAY_MS, 200).rows
    assert set(rows.tolist()) == set(log.items.tolist())


def test_no_clicks_no_list(member):
    empty = np.array([], dtype=np.int64)
    assert len(member.rank(Clicks(empty, empty, empty, 5), DAY_MS, 10).rows) == 0
