import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.stats import chisquare

from dssm_core.columns import HOUR_MS, ITEM, USER
from dssm_core.errors import ArtifactError, DataError
from dssm_core.features.events import Events
from dssm_core.features.ids import Ids
from dssm_core.features.interactions import Interactions
from dssm_core.sampling.samplers.active import Active
from dssm_core.sampling.samplers.frequency_bands import FrequencyBands
from dssm_core.sampling.samplers.hard import Hard
from dssm_core.sampling.samplers.in_batch import InBatch, Streaming
from dssm_core.sampling.samplers.mixed import Mixed
from dssm_core.sampling.samplers.popularity import Popularity
from dssm_core.sampling.samplers.protocol import alias_table, mean_share
from dssm_core.sampling.samplers.ralm import Ralm
from dssm_core.sampling.samplers.rank_suppressed import RankSuppressed
from dssm_core.sampling.samplers.unseen import Unseen, draw_by_rejection, draw_compiled

EMPTY = torch.zeros(5, 0, dtype=torch.int64)
EVENTS = Events(
    *(torch.ones(1, dtype=torch.int64) for _ in range(4))
)  # what it is does not matter to shared candidates


@pytest.fixture
def log():
    """Item 1: 2 clicks in hour 0; item 2: 1 click in hour 30; item 3: 2 clicks in hour 31."""
    hours = torch.tensor([0, 0, 30, 31, 31])
    item = torch.tensor([1, 1, 2, 3, 3])
    created = torch.tensor([40, 0, 30, 31]) * HOUR_MS
    return Interactions(
        torch.ones(5, dtype=torch.int64),
        item,
        hours * HOUR_MS,
        EMPTY,
        created,
        torch.tensor([0, 40 * HOUR_MS]),
    )


def test_active_by_hand(log):
    sampler = Active(window_h=2, alpha=2.0, uniform_share=0.3)
    tables = sampler.fit(log, torch.tensor([10, 31, 32]) * HOUR_MS, {})
    q = [
        sampler.log_q(tables, bucket, torch.tensor([1, 2, 3]), EVENTS).exp().tolist()
        for bucket in range(3)
    ]
    assert q[0] == pytest.approx(
        [1, 0, 0]
    )  # nothing was clicked in the 2 h before hour 10: only item 1 is known
    assert q[1] == pytest.approx(
        [0.15, 0.15 + 0.7, 0]
    )  # item 3 is first clicked at hour 31, not before it
    assert q[2] == pytest.approx([0.1, 0.1 + 0.7 * 1 / 5, 0.1 + 0.7 * 4 / 5])


def test_popularity_by_hand(log):
    sampler = Popularity(alpha=0.5)
    tables = sampler.fit(log, torch.tensor([0]), {})
    total = 2 * math.sqrt(2) + 1
    expected = [math.sqrt(2) / total, 1 / total, math.sqrt(2) / total]
    assert sampler.log_q(
        tables, 0, torch.tensor([1, 2, 3]), EVENTS
    ).exp().tolist() == pytest.approx(expected)


@pytest.mark.parametrize("shape", [0.05, 0.5, 5.0])
@pytest.mark.parametrize("size", [1, 2, 3, 100, 5000])
def test_an_alias_table_gives_back_the_shares(shape, size):
    """The sum of what each cell keeps and passes on is the distribution, up to rounding."""
    share = torch.distributions.Gamma(shape, 1.0).sample((size,)).double() + 1e-12
    share /= share.sum()
    keep, alias = alias_table(share)
    assert ((keep >= 0) & (keep <= 1)).all()
    given = keep.index_add(0, alias, 1 - keep) / size
    torch.testing.assert_close(given, share, atol=1e-12, rtol=1e-6)


def clicked(item, times=None):
    """A log of one bucket: these items, one after the other."""
    item = torch.tensor(item)
    time = torch.arange(1, len(item) + 1) if times is None else torch.tensor(times)
    none = torch.zeros(len(item), 0, dtype=torch.int64)
    created = torch.zeros(int(item.max()) + 1, dtype=torch.int64)
    return Interactions(
        torch.ones_like(item), item, time, none, created, torch.tensor([0, int(time.max()) + 1])
    )


def streamed(log, as_of, bucket, items, **settings):
    sampler = InBatch(streaming=Streaming(**settings))
    return (
        sampler.log_q(
            sampler.fit(log, torch.tensor(as_of), {}), bucket, torch.tensor(items), EVENTS
        )
        .exp()
        .tolist()
    )


def test_streaming_estimate_by_hand():
    """Item 1 at steps 1, 2, 6: its gaps 1, 1, 4; item 2 at 3, 4, 5: 3, 1, 1. Weights 1, 1/2, then
    the step of 1/2.
    """
    log = clicked([3, 1, 1, 2, 2, 2, 1])  # a user's first event is not trained on
    assert streamed(log, [0], 0, [1, 2, 3], step=0.5) == pytest.approx([1 / 2.5, 1 / 1.5, 0])
    assert streamed(log, [0], 0, [1, 2], step=0.01) == pytest.approx([3 / 6, 3 / 5]), (
        "evenly while items are new"
    )
    assert streamed(log, [0], 0, [1, 2], slots=1) == pytest.approx([1, 1]), (
        "all in one cell: each event is the cell's"
    )


def test_streaming_estimate_as_of_each_bucket():
    """Activity on: items known before the first refresh, three events of item 1 in bucket 0, item 2
    thrice in bucket 1.
    """
    log = clicked([1, 1, 1, 2, 2, 2], times=[11, 12, 13, 21, 22, 23])
    assert streamed(log, [5, 20], 0, [1, 2]) == pytest.approx([1, 0])
    assert streamed(log, [5, 20], 1, [1, 2]) == pytest.approx([0, 3 / 6]), (
        "item 1 is in no batch of bucket 1"
    )


def test_streaming_estimate_finds_planted_frequencies_and_their_change():
    generator = torch.Generator().manual_seed(0)
    early, late = torch.tensor([0.5, 0.3, 0.15, 0.05]), torch.tensor([0.05, 0.15, 0.3, 0.5])
    item = torch.cat(
        [
            torch.multinomial(q, 30_000, replacement=True, generator=generator) + 1
            for q in (early, late)
        ]
    )
    got = streamed(clicked([1, *item.tolist()]), [0], 0, [1, 2, 3, 4], step=0.005)
    assert got == pytest.approx(
        late.tolist(), rel=0.25
    )  # an exact count over both halves would say 0.275, 0.225, …


def shares_of(sampler, log, items, events=EVENTS, ids=None):
    """Probabilities of items, after a fit on one bucket; [n], or [B, n] for candidates of each
    event's own.
    """
    tables, items = sampler.fit(log, torch.tensor([0]), ids or {}), torch.tensor(items)
    if sampler.own:
        items = items.expand(len(events.user), -1)
    return sampler.log_q(tables, 0, items, events).exp().tolist()


def asking(users, as_of):
    """Events of these users at these moments; their items do not matter."""
    users = torch.tensor(users)
    return Events(users, torch.ones_like(users), torch.zeros_like(users), torch.tensor(as_of))


COUNTED = [1, 2, 2, 2, 2, 2, 2, 3, 3, 3]  # clicks on items 1 to 4: 1, 6, 3, 0


def counted():
    log = clicked(COUNTED)
    return replace(
        log, created=torch.zeros(5, dtype=torch.int64)
    )  # item 4 is known and was not clicked


def test_frequency_bands_by_hand():
    """Item 2 holds 60 % of the clicks, 2 and 3 hold 90 %."""
    assert shares_of(
        FrequencyBands(high_clicks=0.5, high_draws=0.4), counted(), [1, 2, 3, 4]
    ) == pytest.approx([0.2, 0.4, 0.2, 0.2])
    assert shares_of(
        FrequencyBands(high_clicks=0.8, high_draws=0.4), counted(), [1, 2, 3, 4]
    ) == pytest.approx([0.3, 0.2, 0.2, 0.3])
    assert shares_of(FrequencyBands(high_clicks=0.99), clicked([1, 2]), [1, 2]) == pytest.approx(
        [0.5, 0.5]
    ), "no low band"


def test_log_uniform_by_hand():
    """Ranks of items 2, 3, 1, 4 are 0 to 3: log 2, log 3/2, log 4/3, log 5/4, over log 5."""
    expected = [math.log(4 / 3), math.log(2), math.log(3 / 2), math.log(5 / 4)]
    expected = [each / math.log(5) for each in expected]
    assert shares_of(Ralm(), counted(), [1, 2, 3, 4]) == pytest.approx(expected)
    assert shares_of(RankSuppressed(), counted(), [1, 2, 3, 4]) == pytest.approx(expected)
    turned = [math.log(3 / 2), math.log(5 / 4), math.log(4 / 3), math.log(2)]
    assert shares_of(RankSuppressed(favour="rare"), counted(), [1, 2, 3, 4]) == pytest.approx(
        [each / math.log(5) for each in turned]
    )


@pytest.fixture
def previous(tmp_path):
    """A model of users b and c over items v, w, x, y, z, which it ranks in this order for b and in
    reverse for c.
    """
    Ids(pd.Index(["b", "c"])).save(tmp_path / "user_ids.parquet", USER)
    Ids(pd.Index(["v", "w", "x", "y", "z"])).save(tmp_path / "item_ids.parquet", ITEM)
    np.save(tmp_path / "user_embeddings.npy", np.array([[9.0], [1.0], [-1.0]]))
    np.save(tmp_path / "item_embeddings.npy", np.array([[5.0], [4.0], [3.0], [2.0], [1.0]]))
    return tmp_path


def test_hard_by_hand(previous):
    """Now users are a, b, c and items w, x, y, z; b has clicked x."""
    ids = {USER: Ids(pd.Index(["a", "b", "c"])), ITEM: Ids(pd.Index(["w", "x", "y", "z"]))}
    log = replace(clicked([1, 2, 3, 4]), user=torch.tensor([1, 2, 1, 1]))
    events = asking([1, 2, 3], [9, 9, 9])
    got = shares_of(Hard(bundle=str(previous), band=(1, 4)), log, [1, 2, 3, 4], events, ids)
    assert got[0] == pytest.approx([0.25] * 4), "the model does not know a"
    assert got[1] == pytest.approx([0.5, 0, 0.5, 0]), (
        "ranks 1 to 3 are w, x, y, but x is a positive"
    )
    assert got[2] == pytest.approx([1 / 3, 1 / 3, 1 / 3, 0]), "ranks 1 to 3 are y, x, w"
    got = shares_of(
        Hard(bundle=str(previous), band=(0, 5), per_user=2), log, [1, 2, 3, 4], events, ids
    )
    assert got[1] == pytest.approx([0.5, 0, 0.5, 0]), (
        "of w, y, z (v is unknown now) every other place: 0 and 3 // 2"
    )
    assert got[2] == pytest.approx([0, 0.5, 0, 0.5]), "of z, y, x, w the places 0 and 2"


def test_hard_refuses_what_it_cannot_use(previous, tmp_path):
    ids = {USER: Ids(pd.Index(["a"])), ITEM: Ids(pd.Index(["w"]))}
    with pytest.raises(DataError, match="knows none of the train users"):
        Hard(bundle=str(previous)).fit(clicked([1]), torch.tensor([0]), ids)
    with pytest.raises(
        DataError, match=r"begins at rank 100, but .* has 5 items: give lower ranks"
    ):
        Hard(bundle=str(previous)).fit(
            clicked([1]), torch.tensor([0]), {**ids, USER: Ids(pd.Index(["b"]))}
        )
    with pytest.raises(
        ArtifactError, match=r"cannot be read: .*; give the folder of a finished run"
    ):
        Hard(bundle=str(tmp_path / "nothing")).fit(clicked([1]), torch.tensor([0]), ids)


def test_mixed_by_hand():
    sampler = Mixed.model_validate(
        {
            "parts": [
                {"kind": "uniform", "share": 0.2},
                {"kind": "popularity", "share": 0.8, "alpha": 1.0},
            ]
        }
    )
    assert not sampler.own
    assert shares_of(sampler, counted(), [1, 2, 3, 4]) == pytest.approx(
        [0.05 + 0.08, 0.05 + 0.48, 0.05 + 0.24, 0.05]
    )
    sampler = Mixed.model_validate(
        {"parts": [{"kind": "uniform", "share": 0.2}, {"kind": "unseen", "share": 0.8}]}
    )
    assert sampler.own
    log = replace(counted(), user=torch.tensor([1] * 7 + [2] * 3))
    assert shares_of(sampler, log, [1, 2, 3, 4], asking([1], [9]))[0] == pytest.approx(
        [0.05, 0.05, 0.45, 0.45]
    )
    assert sampler.draw(
        sampler.fit(log, torch.tensor([0]), {}), 0, 3, asking([1, 2], [9, 9]), torch.Generator()
    ).shape == (2, 3)


def test_unseen_by_hand():
    """By clicks 1, 6, 3, 0: user 1 has clicked 1 and 2, user 2 all that can be drawn, user 3 only
    item 2.
    """
    log = replace(
        clicked([*COUNTED, 3, 1, 2]),
        created=torch.zeros(5, dtype=torch.int64),
        user=torch.tensor([1] * 7 + [3] * 3 + [2] * 3),
    )
    log = replace(log, user=torch.tensor([1, 1, 3, 3, 3, 3, 3, 2, 2, 2, 2, 2, 2]))
    sampler = Unseen.model_validate(
        {"of": {"kind": "popularity", "alpha": 1.0}}
    )  # 2, 7, 4, 0 clicks now
    got = shares_of(sampler, log, [1, 2, 3, 4], asking([1, 2, 3], [9, 9, 9]))
    assert got[0] == pytest.approx([0, 0, 1, 0])
    assert got[1] == pytest.approx([2 / 13, 7 / 13, 4 / 13, 0])
    assert got[2] == pytest.approx([2 / 6, 0, 4 / 6, 0])
    assert mean_share(
        sampler, sampler.fit(log, torch.tensor([0]), {}), 0, torch.arange(1, 5), log
    ).sum().item() == pytest.approx(1)


@pytest.mark.parametrize("draw", [draw_compiled, draw_by_rejection])
def test_unseen_draws_where_nearly_everything_is_excluded(draw):
    """Item 1 has a million clicks and the user has taken it: rejection alone would hardly end."""
    clicks = torch.cat([torch.ones(10**6, dtype=torch.int64), torch.tensor([2, 3, 3, 3])])
    none = torch.zeros(len(clicks), 0, dtype=torch.int64)
    user = torch.ones_like(clicks).index_fill(0, torch.arange(10**6, 10**6 + 4), 2)
    log = Interactions(
        user,
        clicks,
        torch.arange(len(clicks)),
        none,
        torch.zeros(4, dtype=torch.int64),
        torch.tensor([0, len(clicks)]),
    )
    tables = Unseen.model_validate({"of": {"kind": "popularity", "alpha": 1.0}}).fit(
        log, torch.tensor([0]), {}
    )
    drawn = draw(tables, torch.ones(40, dtype=torch.int64), 100, torch.Generator().manual_seed(1))
    assert drawn.shape == (40, 100)
    counts = drawn.flatten().bincount(minlength=4)
    assert counts[:2].tolist() == [0, 0]
    assert chisquare(counts[2:], [1000, 3000]).pvalue > 1e-4


def test_unseen_rejection_on_any_device_draws_what_log_q_says():
    log = replace(counted(), user=torch.tensor([1, 1, 2, 2, 2, 2, 2, 2, 2, 2]))
    sampler = Unseen()
    tables, users = sampler.fit(log, torch.tensor([0]), {}), torch.tensor([1, 2])
    drawn = draw_by_rejection(tables, users, 10_000, torch.Generator().manual_seed(0))
    assert chisquare(drawn[0].bincount(minlength=5)[3:], [5000, 5000]).pvalue > 1e-4
    assert chisquare(drawn[1].bincount(minlength=5)[[1, 4]], [5000, 5000]).pvalue > 1e-4


def test_unseen_draws_alike_on_any_number_of_threads():
    log = replace(counted(), user=torch.tensor([1] * 7 + [2] * 3))
    tables, users = (
        Unseen().fit(log, torch.tensor([0]), {}),
        torch.randint(1, 3, (9000,), generator=torch.Generator().manual_seed(0)),
    )
    before, drawn = torch.get_num_threads(), []
    try:
        for threads in (1, 3):
            torch.set_num_threads(threads)
            drawn.append(draw_compiled(tables, users, 10, torch.Generator().manual_seed(4)))
    finally:
        torch.set_num_threads(before)
    assert torch.equal(*drawn)


def test_clicks_are_counted_in_parts_as_at_once(monkeypatch):
    """Active in a log of 300 clicks, counted 7 at a time."""
    rng = np.random.default_rng(5)
    time = torch.from_numpy(np.sort(rng.integers(0, 50 * HOUR_MS, 300)))
    item = torch.from_numpy(rng.integers(1, 9, 300))
    none = torch.zeros(300, 0, dtype=torch.int64)
    window = torch.tensor([0, 50 * HOUR_MS])
    log = Interactions(item, item, time, none, torch.zeros(9, dtype=torch.int64), window)
    as_of = torch.tensor([5, 30, 31, 48]) * HOUR_MS
    whole = Active(window_h=20).fit(log, as_of, {})
    monkeypatch.setattr("dssm_core.sampling.samplers.active.ROWS_AT_ONCE", 7)
    parts = Active(window_h=20).fit(log, as_of, {})
    assert all(torch.equal(parts[name], whole[name]) for name in whole)
    for bucket, end in enumerate(as_of.tolist()):
        rows = (time < end) & (time >= end - 20 * HOUR_MS)
        clicked = slice(*whole["ptr"][bucket : bucket + 2].tolist())
        assert whole["items"][clicked].tolist() == item[rows].unique().tolist()
