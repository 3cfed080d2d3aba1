"""Every sampler of the family draws what its log-Q says."""

import numpy as np
import pytest
import torch
from scipy.stats import chisquare

from dssm_core import families
from dssm_core.batches import Events, training_events
from dssm_core.config import Member
from dssm_core.features import Log
from dssm_core.samplers import SAMPLERS
from dssm_core.samplers.protocol import Sampler
from dssm_core.schema import HOUR_MS

ITEMS, USERS, DRAWS = 30, 8, 60_000
AS_OF = torch.tensor([5, 20, 40]) * HOUR_MS


@pytest.fixture(scope="module")
def log():
    rng = np.random.default_rng(3)
    n = 2_000
    time = np.sort(rng.integers(0, 48 * HOUR_MS, n))
    item = np.minimum(rng.geometric(0.15, n), ITEMS)
    item[:ITEMS] = np.arange(1, ITEMS + 1)  # every code occurs
    user = np.minimum(rng.geometric(0.4, n), USERS)
    user[:USERS] = np.arange(1, USERS + 1)
    created = np.full(ITEMS + 1, 48 * HOUR_MS)
    np.minimum.at(created, item, time)
    zeros = torch.zeros(n, 0, dtype=torch.int64)
    return Log(torch.tensor(user), torch.tensor(item), torch.tensor(time), zeros, torch.tensor(created), torch.tensor([0, 48 * HOUR_MS]))


def build(kind: str) -> Sampler:
    return families.build(SAMPLERS, Member(kind=kind))


def batch(log: Log, bucket: int) -> Events:
    """All events of a bucket: the in-batch distribution is then exact."""
    events = training_events(log, AS_OF)
    return Events(*(part[events.bucket == bucket] for part in vars(events).values()))


def first_events(events: Events) -> Events:
    """One event of each user, all users: [USERS or fewer]."""
    _, first = np.unique(events.user.numpy(), return_index=True)
    return Events(*(part[torch.from_numpy(first)] for part in vars(events).values()))


def check_draws(drawn: torch.Tensor, log_q: torch.Tensor) -> None:
    """drawn: [n] codes; log_q: [ITEMS]."""
    share = log_q.double().exp().numpy()
    assert share.sum() == pytest.approx(1, abs=1e-5)
    counts = torch.bincount(drawn, minlength=ITEMS + 1)[1:].numpy()
    assert counts.sum() == len(drawn), "code 0 was drawn"
    assert not counts[share == 0].any()
    expected = share[share > 0] / share.sum() * len(drawn)
    assert chisquare(counts[share > 0], expected).pvalue > 1e-4


@pytest.mark.parametrize("kind", sorted(SAMPLERS))
@pytest.mark.parametrize("bucket", [0, 1, 2])
def test_draws_follow_log_q(kind, bucket, log):
    """Shared candidates against one distribution; own ones against each user's."""
    sampler, events, generator = build(kind), batch(log, bucket), torch.Generator().manual_seed(bucket)
    tables, items = sampler.fit(log, AS_OF, {}), torch.arange(1, ITEMS + 1)
    if not sampler.own:
        check_draws(sampler.draw(tables, bucket, DRAWS, events, generator), sampler.log_q(tables, bucket, items, events))
        return
    events = first_events(events)
    drawn = sampler.draw(tables, bucket, DRAWS, events, generator)
    assert drawn.shape == (len(events.user), DRAWS)
    log_q = sampler.log_q(tables, bucket, items.expand(len(events.user), -1), events)
    for place in range(len(events.user)):
        check_draws(drawn[place], log_q[place])


@pytest.mark.parametrize("kind", sorted(SAMPLERS))
def test_same_generator_same_draws(kind, log):
    sampler, events = build(kind), first_events(batch(log, 1))
    tables = sampler.fit(log, AS_OF, {})
    one, other = (sampler.draw(tables, 1, 50, events, torch.Generator().manual_seed(7)) for _ in range(2))
    assert torch.equal(one, other)
