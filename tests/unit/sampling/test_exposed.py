"""Negatives from what was shown, against a loop that knows the rule."""

from collections import Counter
from dataclasses import replace

import duckdb
import numpy as np
import pytest
import torch
from pydantic import ValidationError
from scipy.stats import chisquare

from dssm_core.errors import ConfigError, DataError
from dssm_core.features.events import Events
from dssm_core.features.interactions import Interactions
from dssm_core.sampling.coded_log import code_impressions
from dssm_core.sampling.samplers.exposed import Exposed
from dssm_core.sampling.samplers.mixed import Mixed

ITEMS = 6
SOURCES = ("impression", "earlier", "uniform")
MIX = {"impression": 0.5, "earlier": 0.3, "uniform": 0.2}
MIXES = {
    "all": MIX,
    "impression": {"impression": 1},
    "earlier": {"earlier": 1},
    "uniform": {"uniform": 1},
    "shown": {"impression": 0.4, "earlier": 0.6},
    "others": {"earlier": 0.5, "uniform": 0.5},
    "no earlier": {"impression": 0.7, "uniform": 0.3},
}

# user, item, time, impression of what was taken; then of what was not
TAKEN = [
    (1, 1, 20, 1),  # with 2, 3, 3 shown beside it
    (1, 4, 30, 2),  # with 5 and 1, but 1 was taken in impression 1
    (2, 6, 30, 3),  # of another user: with 1 only
    (2, 5, 40, 0),  # of no impression
    (3, 2, 50, 4),  # with 4 only, which this user takes later: nothing is left
    (3, 4, 60, 0),
    (4, 3, 70, 5),  # a user who was shown nothing before
]
SHOWN = [
    (1, 6, 10, 0),
    (1, 2, 20, 1),
    (1, 3, 20, 1),
    (1, 3, 21, 1),
    (1, 5, 30, 2),
    (1, 1, 30, 2),
    (2, 1, 30, 3),
    (3, 4, 50, 4),
    (4, 1, 70, 5),
    (4, 2, 70, 5),
]


def a_log(taken=TAKEN, shown=SHOWN):
    user, item, time, impression = torch.tensor(taken).T.contiguous()
    of_shown = torch.tensor(shown).reshape(-1, 4).T.contiguous()
    return Interactions(
        user,
        item,
        time,
        torch.zeros(len(user), 0, dtype=torch.int64),
        torch.zeros(ITEMS + 1, dtype=torch.int64),
        torch.tensor([0, 100]),
        *of_shown[:3],
        impression=impression,
        shown_impression=of_shown[3],
    )


def events_of(log):
    """Every positive as an event, as of its own time."""
    rows = torch.arange(len(log.user))
    return Events.of(log, rows, torch.zeros_like(rows), log.time)


def wanted(taken, shown, shares):
    """Probability of each item for each event, by loops. → [events, ITEMS]"""
    own = {(user, item) for user, item, _, _ in taken}
    left = [row for row in shown if row[:2] not in own]
    found = np.zeros((len(taken), ITEMS))
    for event, (user, _, time, impression) in enumerate(taken):
        lists = {
            "impression": [row[1] for row in left if impression and row[3] == impression],
            "earlier": [row[1] for row in left if row[0] == user and row[2] < time],
            "uniform": list(range(1, ITEMS + 1)),
        }
        share = 0.0
        for source in SOURCES:
            share += shares.get(source, 0)
            if lists[source]:
                for item, times in Counter(lists[source]).items():
                    found[event, item - 1] += share * times / len(lists[source])
                share = 0.0
    return found


def probabilities(sampler, log, events):
    items = torch.arange(1, ITEMS + 1).expand(len(events.user), -1)
    tables = sampler.fit(log, torch.tensor([0]), {})
    return sampler.log_q(tables, 0, items, events).double().exp().numpy()


@pytest.mark.parametrize("name", MIXES)
def test_probabilities_and_draws_are_those_of_a_loop(name):
    sampler, log = Exposed(shares=MIXES[name]), a_log()
    events = events_of(log)
    expected = wanted(TAKEN, SHOWN, MIXES[name])
    np.testing.assert_allclose(probabilities(sampler, log, events), expected, atol=1e-6)
    tables = sampler.fit(log, torch.tensor([0]), {})
    drawn = sampler.draw(tables, 0, 20_000, events, torch.Generator().manual_seed(1))
    for event, shares in enumerate(expected):
        counts = np.bincount(drawn[event], minlength=ITEMS + 1)[1:]
        assert counts.sum() == 20_000
        assert not counts[shares == 0].any()
        if (shares > 0).sum() > 1:
            assert chisquare(counts[shares > 0], shares[shares > 0] * 20_000).pvalue > 1e-4


def test_each_case_by_hand():
    """6 was shown to user 1 before; 3 twice in impression 1."""
    got = probabilities(Exposed(shares=MIX), a_log(), events_of(a_log()))
    u = 0.2 / 6
    assert got[0] == pytest.approx([u, u + 0.5 / 3, u + 0.5 * 2 / 3, u, u, u + 0.3])
    later = [u, u + 0.3 / 4, u + 0.3 * 2 / 4, u, u + 0.5, u + 0.3 / 4]
    assert got[1] == pytest.approx(later), "1 was taken at another time: 5 is all of impression 2"
    assert got[2] == pytest.approx([0.5 + 0.5 / 6, *[0.5 / 6] * 5]), (
        "nothing earlier: its share goes to all items"
    )
    assert got[3] == pytest.approx([u + 0.8, u, u, u, u, u]), "no impression"
    assert got[4] == pytest.approx([1 / 6] * 6), "4 is taken later, so nothing was only shown"


def test_a_random_log_is_as_a_loop_says():
    rng = np.random.default_rng(0)

    def rows(n):
        impression = rng.integers(0, 13, n)  # of the user that is its number modulo 4
        user = np.where(impression, impression % 4, rng.integers(0, 4, n)) + 1
        time = np.where(impression, impression * 5, rng.integers(0, 60, n))
        order = time.argsort(kind="stable")
        item = rng.integers(1, ITEMS + 1, n)
        return [tuple(map(int, row)) for row in np.stack([user, item, time, impression], 1)[order]]

    taken, shown = rows(9), rows(60)
    got = probabilities(Exposed(shares=MIX), a_log(taken, shown), events_of(a_log(taken, shown)))
    np.testing.assert_allclose(got, wanted(taken, shown, MIX), atol=1e-6)


def test_a_log_without_impressions_draws_from_what_was_shown_earlier():
    none = torch.zeros(0, dtype=torch.int64)
    log = replace(a_log(), impression=none, shown_impression=none)
    taken = [(*row[:3], 0) for row in TAKEN]
    got = probabilities(Exposed(shares=MIX), log, events_of(log))
    np.testing.assert_allclose(got, wanted(taken, SHOWN, MIX), atol=1e-6)
    assert events_of(log).impression is None


def test_the_first_part_of_training_knows_the_first_part_of_the_log():
    log = a_log().before(45)
    taken = [row for row in TAKEN if row[2] < 45]
    shown = [row for row in SHOWN if row[2] < 45]
    got = probabilities(Exposed(shares=MIX), log, events_of(log))
    np.testing.assert_allclose(got, wanted(taken, shown, MIX), atol=1e-6)
    last = a_log().last_of_each()
    assert a_log().without(last).impression.tolist() == [1, 3, 4, 5]


def test_items_that_cannot_be_trained_are_left_out():
    """Here item 6 in what was shown; of the positives, none has it."""
    taken = [row for row in TAKEN if row[1] != 6]
    log = a_log(taken).of_items(ITEMS)
    sampler, events = Exposed(shares=MIX), events_of(log)
    tables = sampler.fit(log, torch.tensor([0]), {})
    items = torch.arange(1, ITEMS).expand(len(events.user), -1)
    got = sampler.log_q(tables, 0, items, events).double().exp().numpy()
    without = [row for row in SHOWN if row[1] != 6]
    expected = wanted(taken, without, MIX)
    uniform = expected[:, 5:] * ITEMS  # of the loop, which knows 6 items
    np.testing.assert_allclose(got, expected[:, :5] + uniform * (1 / 5 - 1 / 6), atol=1e-6)


def test_inside_mixed():
    parts = ({"kind": "exposed", "shares": MIX, "share": 0.5}, {"kind": "uniform", "share": 0.5})
    log = a_log()
    got = probabilities(Mixed(parts=parts), log, events_of(log))
    np.testing.assert_allclose(got, wanted(TAKEN, SHOWN, MIX) / 2 + 1 / 12, atol=1e-6)


@pytest.mark.parametrize(
    ("shares", "numbers"),
    [
        (MIX, {"impression": 4, "earlier": 1, "uniform": 2}),
        ({"earlier": 0.5, "uniform": 0.5}, {"earlier": 3, "uniform": 4}),
        ({"uniform": 1}, {"uniform": 7}),
    ],
)
def test_events_are_counted_by_the_first_source_that_has_negatives_for_them(shares, numbers):
    log, sampler = a_log(), Exposed(shares=shares)
    tables = sampler.fit(log, torch.tensor([0]), {})
    assert sampler.drawn_from(tables, events_of(log)) == numbers
    mixed = Mixed(
        parts=(
            {"kind": "uniform", "share": 0.5},
            {"kind": "exposed", "shares": shares, "share": 0.5},
        )
    )
    tables = mixed.fit(log, torch.tensor([0]), {})
    assert mixed.drawn_from(tables, events_of(log)) == numbers


@pytest.mark.parametrize(
    "shares",
    [
        {"impression": 0.5},
        {"impression": 1.5, "uniform": -0.5},
        {"impression": float("nan"), "uniform": 1},
        {"impressions": 1},
        {},
    ],
)
def test_shares_that_are_none(shares):
    with pytest.raises((ValidationError, ConfigError)):
        Exposed(shares=shares)


def test_shares_that_do_not_add_up_are_named():
    with pytest.raises(ValidationError, match=r"add up to 0\.75: let them add up to 1"):
        Exposed(shares={"impression": 0.5, "uniform": 0.25})


def test_a_positive_can_be_drawn_if_all_items_can():
    assert Exposed().draws_positives
    assert not Exposed(shares={"impression": 0.5, "earlier": 0.5}).draws_positives


def test_a_log_with_nothing_shown_is_refused():
    empty = a_log(TAKEN, [])
    with pytest.raises(DataError, match="row of a known user and item has label 0: give a log"):
        Exposed().fit(empty, torch.tensor([0]), {})


def test_impressions_are_coded_by_user_and_id_in_the_order_of_the_log():
    """Id 7 of two users; 8 holds positives only, 9 none; ids that are missing."""
    with duckdb.connect() as con:
        con.execute(
            "CREATE VIEW train AS SELECT * FROM (VALUES"
            " ('a', '8', 1, 0), ('b', ' 7', 0, 1), ('a', '7', 1, 2), ('b', '7', 1, 3),"
            " ('a', '7 ', 0, 4), ('a', '9', 0, 5), ('a', '', 1, 6), ('a', '', 0, 7),"
            " ('a', NULL, 1, 8), ('a', NULL, 0, 9), ('b', '9', 0, 10), ('b', '9', NULL, 11))"
            " AS rows(user_id, impression_id, label, _dssm_row)"
        )
        assert code_impressions(con) == 2
        coded = con.sql("SELECT code, user_id, impression_id FROM impressions ORDER BY 1")
        assert coded.fetchall() == [(1, "b", "7"), (2, "a", "7")]


def test_a_log_without_the_column_has_no_impressions():
    with duckdb.connect() as con:
        con.execute("CREATE VIEW train AS SELECT 'a' AS user_id, 1 AS label, 0 AS _dssm_row")
        assert code_impressions(con) == 0
