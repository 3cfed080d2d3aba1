"""Every sampler of the family draws what its log-Q says."""

import numpy as np
import pytest
import torch
from scipy.stats import chisquare

from dssm_core import families
from dssm_core.batches import training_events
from dssm_core.config import Member
from dssm_core.features import Log
from dssm_core.samplers import SAMPLERS
from dssm_core.schema import HOUR_MS

ITEMS, DRAWS = 30, 60_000
AS_OF = torch.tensor([5, 20, 40]) * HOUR_MS


@pytest.fixture(scope="module")
def log():
    rng = np.random.default_rng(3)
    n = 2_000
    time = np.sort(rng.integers(0, 48 * HOUR_MS, n))
    item = np.minimum(rng.geometric(0.15, n), ITEMS)
    item[:ITEMS] = np.arange(1, ITEMS + 1)  # every code occurs
    created = np.full(ITEMS + 1, 48 * HOUR_MS)
    np.minimum.at(created, item, time)
    zeros = torch.zeros(n, 0, dtype=torch.int64)
    return Log(
        torch.ones(n, dtype=torch.int64),
        torch.tensor(item),
        torch.tensor(time),
        zeros,
        torch.tensor(created),
        torch.tensor([0, 48 * HOUR_MS]),
    )


@pytest.mark.parametrize("kind", sorted(SAMPLERS))
@pytest.mark.parametrize("bucket", [0, 1, 2])
def test_draws_follow_log_q(kind, bucket, log):
    sampler = families.build(SAMPLERS, Member(kind=kind))
    tables = sampler.fit(log, AS_OF)
    events = training_events(log, AS_OF)
    positives = events.item[events.bucket == bucket]  # a batch of a whole bucket: in_batch is then exact
    drawn = sampler.draw(tables, bucket, DRAWS, positives, torch.Generator().manual_seed(bucket))
    share = sampler.log_q(tables, bucket, torch.arange(1, ITEMS + 1)).double().exp().numpy()
    assert share.sum() == pytest.approx(1, abs=1e-5)
    counts = torch.bincount(drawn, minlength=ITEMS + 1)[1:].numpy()
    assert counts.sum() == len(drawn), "code 0 was drawn"
    assert not counts[share == 0].any()
    expected = share[share > 0] / share.sum() * len(drawn)
    assert chisquare(counts[share > 0], expected).pvalue > 1e-4


@pytest.mark.parametrize("kind", sorted(SAMPLERS))
def test_same_generator_same_draws(kind, log):
    sampler = families.build(SAMPLERS, Member(kind=kind))
    tables, positives = sampler.fit(log, AS_OF), torch.tensor([1, 2])
    one, other = (sampler.draw(tables, 1, 50, positives, torch.Generator().manual_seed(7)) for _ in range(2))
    assert torch.equal(one, other)
