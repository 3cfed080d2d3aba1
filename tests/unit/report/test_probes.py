"""What the report looks at, against hand arithmetic, planted answers and brute force."""

import numpy as np
import pandas as pd
import pytest
import torch

from dssm_core.columns import HOUR_MS, ITEM, USER
from dssm_core.config import Feature, Member
from dssm_core.evaluation.answers import ServedRun
from dssm_core.evaluation.queries import read_evaluation_data
from dssm_core.features.events import training_events
from dssm_core.features.ids import Ids
from dssm_core.features.interactions import Interactions
from dssm_core.report.diagnostics import calibration, index_timing, items, queries
from dssm_core.report.diagnostics.calibration import Calibration
from dssm_core.sampling.samplers.popularity import Popularity
from dssm_core.sampling.samplers.unseen import Unseen


@pytest.fixture(scope="module")
def log():
    rng = np.random.default_rng(1)
    n, items = 3000, 40
    item = np.minimum(rng.geometric(0.1, n), items)
    item[:items] = np.arange(1, items + 1)
    time = np.sort(rng.integers(0, 48 * HOUR_MS, n))
    created = np.zeros(items + 1, dtype=np.int64)
    return Interactions(
        *map(torch.tensor, (rng.integers(1, 9, n), item, time)),
        torch.zeros(n, 0, dtype=torch.int64),
        *map(torch.tensor, (created, [0, 48 * HOUR_MS])),
    )


IDS = {USER: Ids(pd.Index(range(1, 9))), ITEM: Ids(pd.Index(range(1, 41)))}
AS_OF = torch.tensor([HOUR_MS, 24 * HOUR_MS])


@pytest.mark.parametrize("sampler", [Popularity(), Unseen()], ids=["shared", "each its own"])
def test_a_sound_sampler_is_calibrated(log, sampler):
    found = calibration.draw(sampler, sampler.fit(log, AS_OF, IDS), log, AS_OF, seed=3)
    assert found.drawn.sum() == pytest.approx(1)
    assert found.planned.sum() == pytest.approx(1, abs=1e-5)
    assert 150_000 < found.draws <= calibration.DRAWS
    assert found.inside > 0.85
    assert found.distance == pytest.approx(found.chance, rel=0.3)


class Liar(Popularity):
    """Says that it draws evenly, and draws by popularity."""

    def log_q(self, tables, bucket, items, events):
        return torch.full(items.shape, 1 / 40).log()


def test_a_sampler_that_draws_something_else_is_seen(log):
    liar = Liar(alpha=1.0)
    found = calibration.draw(liar, liar.fit(log, AS_OF, IDS), log, AS_OF, seed=3)
    truth = np.bincount(log.item.numpy(), minlength=41)[1:] / len(log.item)
    assert found.distance == pytest.approx(np.abs(truth - 1 / 40).sum() / 2, abs=0.01)
    assert found.inside < 0.2


def test_only_the_last_refresh_with_events_is_drawn_for(log):
    """As if all events were computed: the refresh at 47 hours has some, one at the end has none."""
    for hours in ([1, 24, 47], [1, 24, 48]):
        times = torch.tensor(hours) * HOUR_MS
        every = training_events(log, times)
        last = every.bucket == every.bucket.max()
        found = calibration._last_events(log, times)
        assert found.item[found.bucket == found.bucket.max()].tolist() == every.item[last].tolist()


def test_calibration_by_hand():
    # 100 draws: expected 50 +- 10 (two deviations) and 50; 61 lies outside
    assert Calibration(np.array([0.5, 0.5]), np.array([0.39, 0.61]), 100).inside == 0
    assert Calibration(np.array([0.5, 0.5]), np.array([0.41, 0.59]), 100).inside == 1
    assert Calibration(np.array([0.5, 0.5]), np.array([0.4, 0.6]), 100).distance == pytest.approx(
        0.1
    )


def test_a_planted_plane_is_found():
    rng = np.random.default_rng(0)
    flat = rng.normal(size=(200, 2)) * [3, 1]
    axes = np.linalg.qr(rng.normal(size=(6, 6)))[0][:2]
    places, shown = items.principal(flat @ axes + 5)
    assert shown == pytest.approx(1)

    def distances(points):
        return np.linalg.norm(points[:, None] - points[None], axis=-1)

    assert distances(places) == pytest.approx(distances(flat), abs=1e-9)
    assert places[:, 0].var() > places[:, 1].var()


def test_neighbours_by_brute_force():
    vectors = np.random.default_rng(0).normal(size=(30, 4)).astype(np.float32)
    rows, how = items.neighbours(vectors, np.array([3, 7]), 5)
    for item, near, similar in zip((3, 7), rows, how, strict=True):
        others = sorted(
            (other for other in range(30) if other != item),
            key=lambda other: -float(vectors[item] @ vectors[other]),
        )
        assert near.tolist() == others[:5]
        assert similar == pytest.approx(vectors[item] @ vectors[others[:5]].T, abs=1e-5)


def test_items_from_the_most_clicked_to_the_least():
    assert items.spread(np.array([5, 0, 9, 1, 3]), 3).tolist() == [
        2,
        0,
        3,
    ]  # places 1, 2 and 4 of four
    assert items.spread(np.zeros(3, dtype=np.int64), 3).tolist() == []


def test_efforts_double_around_the_served_one():
    found = index_timing.other_efforts(
        Member.model_validate({"kind": "faiss_ivf", "nlist": 64, "nprobe": 4}), 1000
    )
    assert [choice.settings for choice in found] == [
        {"nlist": 64, "nprobe": value} for value in (1, 2, 8)
    ]
    assert index_timing.other_efforts(Member(kind="faiss_flat"), 1000) == []


def test_the_served_index_comes_first_and_exact_search_loses_nothing(fabricate):
    served, *others = index_timing.timings(ServedRun(fabricate()))
    assert (served.label, served.recall, served.served) == ("faiss_flat", 1.0, True)
    assert others == []  # four items are too few for inverted lists to say anything


def test_what_a_query_should_find(fabricate):
    warm = read_evaluation_data(
        fabricate()
    ).warm  # user 1 should find items 10 and 20 (rows 0, 1), user 2 item 20
    assert [part.tolist() for part in queries.relevant_pairs(warm, np.array([0, 1]))] == [
        [0, 0, 1],
        [0, 1, 1],
    ]
    assert [part.tolist() for part in queries.relevant_pairs(warm, np.array([1]))] == [[0], [1]]


def test_scores_and_examples_of_the_made_run(fabricate):
    run = fabricate()
    opened = ServedRun(run)
    warm = read_evaluation_data(run).warm
    asked = queries.sample_queries(opened, warm)
    told, share = queries.similarities(asked, warm, 1, seed=0)
    # user 1 points at item 10 and stands across to 20; user 2 points at 20: two of three reach what
    # is at place 1
    assert sorted(told["clicked in the test set"].tolist()) == [0, 1, 1]
    assert told["position 1 of the list"].tolist() == [1, 1]
    assert share == pytest.approx(2 / 3)
    one, two = queries.examples(opened, asked, warm, 5, 2)
    assert (one.user, one.history.tolist(), one.recalled[0], one.relevant, one.hit) == (
        1,
        [2, 0],
        0,
        2,
        2,
    )
    assert one.hits.tolist()[0] is True
    assert (two.user, two.recalled[0], two.hits.tolist()) == (2, 1, [True, False])


def test_the_map_is_coloured_by_age_where_items_have_no_category(fabricate, finish):
    from safetensors.torch import save_file

    run = fabricate()
    folder = run.step("sample_negatives")
    save_file(
        {
            "log.created": torch.tensor([0, 0, 1, 2, 3]) * HOUR_MS,
            "log.window": torch.tensor([0, 4]) * HOUR_MS,
        },
        folder / "log.safetensors",
    )
    found = items.item_map(ServedRun(run))
    assert (found.name, found.colours.tolist(), found.positions.shape) == (
        "hours since first seen",
        [4, 3, 2, 1],
        (4, 2),
    )


@pytest.mark.parametrize(
    ("kind", "cells", "colours"),
    [
        ("categorical", ["x", "y|z", None], ["x", "y|z", "(none)"]),
        ("multi", ["x", "y|z", None], ["x", "y", "(none)"]),
        ("multi", [["x"], ["y", "z"], None], ["x", "y", "(none)"]),
    ],
)
def test_the_map_is_coloured_by_an_items_first_value(kind, cells, colours):
    found = items.first_values(pd.Series(cells), Feature(column="c", kind=kind))
    assert found.tolist() == colours
