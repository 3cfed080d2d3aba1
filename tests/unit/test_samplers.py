import math

import pytest
import torch

from dssm_core.batches import Events
from dssm_core.features import Log
from dssm_core.samplers.active import Active
from dssm_core.samplers.popularity import Popularity
from dssm_core.samplers.protocol import alias_table
from dssm_core.schema import HOUR_MS

EMPTY = torch.zeros(5, 0, dtype=torch.int64)
EVENTS = Events(*(torch.ones(1, dtype=torch.int64) for _ in range(4)))  # what it is does not matter to shared candidates


@pytest.fixture
def log():
    """Item 1: 2 clicks in hour 0; item 2: 1 click in hour 30; item 3: 2 clicks in hour 31."""
    hours = torch.tensor([0, 0, 30, 31, 31])
    item = torch.tensor([1, 1, 2, 3, 3])
    created = torch.tensor([40, 0, 30, 31]) * HOUR_MS
    return Log(torch.ones(5, dtype=torch.int64), item, hours * HOUR_MS, EMPTY, created, torch.tensor([0, 40 * HOUR_MS]))


def test_active_by_hand(log):
    sampler = Active(window_h=2, alpha=2.0, uniform_share=0.3)
    tables = sampler.fit(log, torch.tensor([10, 31, 32]) * HOUR_MS, {})
    q = [sampler.log_q(tables, bucket, torch.tensor([1, 2, 3]), EVENTS).exp().tolist() for bucket in range(3)]
    assert q[0] == pytest.approx([1, 0, 0])  # nothing was clicked in the 2 h before hour 10: only item 1 is known
    assert q[1] == pytest.approx([0.15, 0.15 + 0.7, 0])  # item 3 is first clicked at hour 31, not before it
    assert q[2] == pytest.approx([0.1, 0.1 + 0.7 * 1 / 5, 0.1 + 0.7 * 4 / 5])


def test_popularity_by_hand(log):
    sampler = Popularity(alpha=0.5)
    tables = sampler.fit(log, torch.tensor([0]), {})
    total = 2 * math.sqrt(2) + 1
    expected = [math.sqrt(2) / total, 1 / total, math.sqrt(2) / total]
    assert sampler.log_q(tables, 0, torch.tensor([1, 2, 3]), EVENTS).exp().tolist() == pytest.approx(expected)


@pytest.mark.parametrize("shape", [0.05, 0.5, 5.0])
@pytest.mark.parametrize("size", [1, 2, 3, 100, 5000])
def test_an_alias_table_gives_back_the_shares(shape, size):
    """Summing what each cell keeps and what it passes on is the distribution itself, to rounding."""
    share = torch.distributions.Gamma(shape, 1.0).sample((size,)).double() + 1e-12
    share /= share.sum()
    keep, alias = alias_table(share)
    assert ((keep >= 0) & (keep <= 1)).all()
    given = keep.index_add(0, alias, 1 - keep) / size
    torch.testing.assert_close(given, share, atol=1e-12, rtol=1e-6)
