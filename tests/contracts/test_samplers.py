"""Every sampler of the family draws what its log-Q says."""

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.stats import chisquare
from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    DynamicOutputShapeException,
    FakeTensorMode,
)

from dssm_core import families
from dssm_core.columns import HOUR_MS, ITEM, USER
from dssm_core.config import Member
from dssm_core.families import SAMPLERS
from dssm_core.features.events import Events, training_events
from dssm_core.features.ids import Ids
from dssm_core.features.interactions import Interactions
from dssm_core.sampling.samplers.protocol import Sampler

ITEMS, USERS, DRAWS = 30, 8, 60_000
AS_OF = torch.tensor([5, 20, 40]) * HOUR_MS
IDS = {
    USER: Ids(pd.Index(range(1, USERS + 1))),
    ITEM: Ids(pd.Index(range(1, ITEMS + 1))),
}  # ids equal codes
BUNDLE = "a folder that a fixture makes"
CASES = {kind: {"kind": kind} for kind in SAMPLERS} | {
    "hard": {"kind": "hard", "bundle": BUNDLE, "band": [3, 20], "per_user": 9},
    "mixed": {
        "kind": "mixed",
        "parts": [
            {"kind": "popularity", "share": 0.2},
            {"kind": "in_batch", "share": 0.3},
            {"kind": "active", "share": 0.5},
        ],
    },
    "mixed, each its own": {
        "kind": "mixed",
        "parts": [{"kind": "exposed", "share": 0.4}, {"kind": "ralm", "share": 0.6}],
    },
    "unseen by popularity": {"kind": "unseen", "of": {"kind": "popularity", "alpha": 2.0}},
    "rare": {"kind": "rank_suppressed", "favour": "rare"},
}


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
    seen = rng.integers(1, USERS, (2, n // 10))  # user 8 was shown nothing
    seen[1] += 10
    return Interactions(
        *map(torch.tensor, (user, item, time)),
        torch.zeros(n, 0, dtype=torch.int64),
        torch.tensor(created),
        torch.tensor([0, 48 * HOUR_MS]),
        *map(torch.tensor, (*seen, time[::10])),
    )


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    """Vectors of users 2 to 8 and of items 6 to 30 and one that is unknown now."""
    folder = tmp_path_factory.mktemp("bundle")
    rng = np.random.default_rng(5)
    Ids(pd.Index(range(2, USERS + 1))).save(folder / "user_ids.parquet", USER)
    Ids(pd.Index([*range(6, ITEMS + 1), 99])).save(folder / "item_ids.parquet", ITEM)
    np.save(folder / "user_embeddings.npy", rng.normal(size=(USERS, 4)))
    np.save(folder / "item_embeddings.npy", rng.normal(size=(ITEMS - 4, 4)))
    return folder


@pytest.fixture
def build(bundle):
    def make(case: str) -> Sampler:
        settings = {
            key: str(bundle) if value == BUNDLE else value for key, value in CASES[case].items()
        }
        return families.build(SAMPLERS, Member.model_validate(settings))

    return make


def batch(log: Interactions, bucket: int) -> Events:
    """All events of a bucket: the in-batch distribution is then exact."""
    events = training_events(log, AS_OF)
    return events.each(lambda part: part[events.bucket == bucket])


def first_events(events: Events) -> Events:
    """One event of each user, all users: [USERS or fewer]."""
    _, first = np.unique(events.user.numpy(), return_index=True)
    return events.each(lambda part: part[torch.from_numpy(first)])


def check_draws(drawn: torch.Tensor, log_q: torch.Tensor) -> None:
    """drawn: [n] codes; log_q: [ITEMS]."""
    share = log_q.double().exp().numpy()
    assert share.sum() == pytest.approx(1, abs=1e-5)
    counts = torch.bincount(drawn, minlength=ITEMS + 1)[1:].numpy()
    assert counts.sum() == len(drawn), "code 0 was drawn"
    assert not counts[share == 0].any()
    if (share > 0).sum() == 1:
        return  # all draws are the one item that can be
    expected = share[share > 0] / share.sum() * len(drawn)
    assert chisquare(counts[share > 0], expected).pvalue > 1e-4


@pytest.mark.parametrize("case", sorted(CASES))
@pytest.mark.parametrize("bucket", [0, 1, 2])
def test_draws_follow_log_q(case, bucket, log, build):
    """Shared candidates against one distribution; own ones against each user's."""
    sampler, events, generator = (
        build(case),
        batch(log, bucket),
        torch.Generator().manual_seed(bucket),
    )
    tables, items = sampler.fit(log, AS_OF, IDS), torch.arange(1, ITEMS + 1)
    if not sampler.own:
        check_draws(
            sampler.draw(tables, bucket, DRAWS, events, generator),
            sampler.log_q(tables, bucket, items, events),
        )
        return
    events = first_events(events)
    drawn = sampler.draw(tables, bucket, DRAWS, events, generator)
    assert drawn.shape == (len(events.user), DRAWS)
    log_q = sampler.log_q(tables, bucket, items.expand(len(events.user), -1), events)
    for place in range(len(events.user)):
        check_draws(drawn[place], log_q[place])


@pytest.mark.parametrize("case", sorted(CASES))
def test_same_generator_same_draws(case, log, build):
    sampler, events = build(case), first_events(batch(log, 1))
    tables = sampler.fit(log, AS_OF, IDS)
    one, other = (
        sampler.draw(tables, 1, 50, events, torch.Generator().manual_seed(7)) for _ in range(2)
    )
    assert torch.equal(one, other)


@pytest.mark.parametrize("case", sorted(CASES))
def test_what_a_sampler_says_of_its_shapes_is_so(case, log, build):
    """Fake tensors have no values: a size or a number that depends on them is an error."""
    sampler, events, generator = build(case), first_events(batch(log, 1)), torch.Generator()
    tables = sampler.fit(log, AS_OF, IDS)
    bucket, count = torch.tensor([1]), len(events.item)
    with FakeTensorMode(allow_non_fake_inputs=True) as fake:
        tables = {name: fake.from_tensor(table) for name, table in tables.items()}
        given = (
            fake.from_tensor(bucket),
            count,
            events.each(fake.from_tensor),
        )
        if not sampler.fixed_shapes:
            with pytest.raises(
                (DataDependentOutputException, DynamicOutputShapeException, RuntimeError)
            ):
                sampler.draw(tables, *given, generator)
            return
        drawn = sampler.draw(tables, *given, generator)
        shared = drawn.dim() == 1
        assert drawn.shape == ((count,) if shared else (count, count))
        assert sampler.log_q(tables, given[0], drawn, given[2]).shape == drawn.shape
