"""Weights of events: 2 is as the event twice, 0 as no event, in the loss and in its gradients."""

import itertools
from dataclasses import replace

import pytest
import torch
from torch.nn.functional import cross_entropy

from dssm_core import families
from dssm_core.config import Member, parse_config
from dssm_core.errors import DataError
from dssm_core.families import LOSSES
from dssm_core.features import shapes
from dssm_core.features.dataset import load_prepared
from dssm_core.features.events import NO_WEIGHT
from dssm_core.features.inputs import item_inputs
from dssm_core.models.two_tower import TwoTower
from dssm_core.runs.run import create_run
from dssm_core.runs.transaction import execute
from dssm_core.training.epoch_selection import HeldOutQueries
from dssm_core.training.logits import BatchVectors, Logits
from dssm_core.training.objective import Objective
from dssm_core.training.ranks import ALONE
from dssm_core.training.trainer import Trainer
from tests.conftest import small_config

BEFORE_TRAINING = ("ingest_data", "validate_data", "split_by_time", "sample_negatives")
BY_PLACE = {
    "features__activity": {"enabled": False},
    "sampler": {"kind": "uniform"},
    "evaluation__baselines": ["hot"],
    "loss": {"kind": "full_softmax"},
    "train__negatives": 1024,
}
FULL = {"loss": {"kind": "full_softmax"}, "train__negatives": 1024}
WEIGHT = torch.tensor([2.0, 1.0, 0.0, 1.0, 3.0])
ROWS = torch.tensor([0, 0, 1, 3, 4, 4, 4])  # the events as often as they weigh
CANDIDATES = 6


def parts(own):
    """Vectors of 5 events and of candidates: shared by the events, or their own. → 3 leaves."""
    generator = torch.Generator().manual_seed(0)
    shape = (5, CANDIDATES, 8) if own else (CANDIDATES, 8)
    sizes = ((5, 8), (5, 8), shape)
    return [torch.randn(size, generator=generator).requires_grad_() for size in sizes]


def batch(vectors, rows=None, weight=None):
    """The events of `rows`, or all, against their candidates."""
    user, item, candidate = vectors
    at = torch.arange(5) if rows is None else rows
    own = candidate.dim() == 3
    codes = torch.arange(10, 10 + CANDIDATES)  # no candidate is an event's own item
    return BatchVectors(
        user=user[at],
        own=item[at],
        candidate=candidate[at] if own else candidate,
        temperature=torch.tensor(0.5),
        own_items=torch.arange(1, 6)[at],
        candidate_items=codes.expand(5, -1)[at] if own else codes,
        log_count_positive=torch.linspace(-1, 0, 5)[at],
        log_count_negative=torch.linspace(-1, 1, CANDIDATES).expand(5, -1)[at]
        if own
        else torch.linspace(-1, 1, CANDIDATES),
        catalogue=40,
        present=None if weight is None else torch.ones(5, dtype=torch.bool),
        weight=weight,
    )


def with_gradients(loss, vectors):
    return [loss.detach(), *torch.autograd.grad(loss, vectors)]


def members():
    names = [(kind, {}) for kind in LOSSES] + [("triplet", {"over": "hardest"})]
    return [families.build(LOSSES, Member(kind=kind, **settings)) for kind, settings in names]


@pytest.mark.parametrize("own", [False, True])
@pytest.mark.parametrize("loss", members(), ids=repr)
def test_weight_2_is_the_event_twice_and_0_is_no_event(loss, own):
    vectors = parts(own)
    weighted = with_gradients(loss(batch(vectors, weight=WEIGHT).logits), vectors)
    repeated = with_gradients(loss(batch(vectors, ROWS).logits), vectors)
    torch.testing.assert_close(weighted, repeated)
    assert all((part[2] == 0).all() for part in weighted[1:3])  # of the event of weight 0
    if not own and (fused := loss.fused(batch(vectors, weight=WEIGHT))) is not None:
        torch.testing.assert_close(with_gradients(fused, vectors), repeated)


@pytest.mark.parametrize("loss", members(), ids=repr)
def test_equal_weights_are_no_weights(loss):
    vectors = parts(own=False)
    weighted = loss(batch(vectors, weight=torch.full((5,), 0.3)).logits)
    torch.testing.assert_close(
        with_gradients(weighted, vectors), with_gradients(loss(batch(vectors).logits), vectors)
    )


@pytest.mark.parametrize("loss", members(), ids=repr)
def test_a_batch_in_which_nothing_counts_has_no_loss_and_no_gradient(loss):
    vectors = parts(own=False)
    nothing = batch(vectors, weight=torch.zeros(5))
    assert all((part == 0).all() for part in with_gradients(loss(nothing.logits), vectors))
    fused = loss.fused(batch(vectors, weight=torch.zeros(5)))
    if fused is not None:
        assert all((part == 0).all() for part in with_gradients(fused, vectors))


def test_a_weighted_mean_by_hand():
    values = torch.tensor([1.0, 5.0, torch.inf])
    present = torch.tensor([True, True, False])
    logits = Logits(values, values[:, None], values, values, 9, present)
    assert logits._replace(weight=torch.tensor([3.0, 1.0, 7.0])).mean(values) == 2  # (3 + 5) / 4


@pytest.fixture(scope="module")
def prepared_run(tmp_path_factory):
    counter, folder = itertools.count(), tmp_path_factory.mktemp("runs")

    def make(**changes):
        raw = small_config(**changes)
        raw["data"]["source"] |= {"users": 300, "items": 400, "clicks": 3_000}
        raw["train"] |= {"batch_size": 100}
        run = create_run(parse_config(raw), folder, f"run{next(counter)}")
        for name in BEFORE_TRAINING:
            execute(run, name)
        return run

    return make


def objective_of(run, weight=None):
    """The objective of the run's log with these weights, and a model."""
    samples = run.step("sample_negatives")
    prepared = load_prepared(samples)
    log = prepared.log if weight is None else replace(prepared.log, weight=weight(prepared.log))
    objective = Objective(run.config, replace(prepared, log=log), log, samples, "refit")
    torch.manual_seed(0)
    return objective, TwoTower(run.config, prepared.schema, prepared.items).eval()


def some(log):
    """Weights from 0 to 3, a third of them 0."""
    drawn = torch.rand(len(log.user), generator=torch.Generator().manual_seed(1))
    return (drawn * 4.5 - 1.5).clamp(min=0)


def loss_and_gradients(objective, model, rows):
    model.zero_grad()
    loss = objective(model, rows, torch.Generator().manual_seed(3))
    loss.backward()
    grads = {name: part.grad for name, part in model.named_parameters() if part.grad is not None}
    return loss.detach(), grads


def test_events_by_refresh_count_as_often_as_they_weigh(prepared_run):
    """Events of weights 0, 1 and 2 against the events as rows of a batch without weights."""
    run = prepared_run(**FULL)
    plain, model = objective_of(run)
    whole = torch.randint(3, (len(plain.log.user),), generator=torch.Generator().manual_seed(1))
    objective, _ = objective_of(run, lambda log: whole.float())
    rows = objective.batches(seed=1)[0]
    chosen = objective.examples.events.each(lambda part: part[rows.at])
    key = lambda events: torch.stack([events.user, events.item, events.as_of], 1)  # noqa: E731
    places = (key(chosen)[:, None] == key(plain.examples.events)).all(2).int().argmax(1)
    repeated = places.repeat_interleave(chosen.weight.long())
    assert set(chosen.weight.tolist()) == {1, 2}  # those of weight 0 are no events
    weighted = loss_and_gradients(objective, model, rows)
    twice = loss_and_gradients(plain, model, replace(rows, at=repeated, events=len(repeated)))
    torch.testing.assert_close(weighted, twice)


@pytest.mark.parametrize("target", ["next", "future"])
def test_positions_of_histories_count_by_the_weight_of_their_target(prepared_run, target):
    """Against the mean of the losses of single events, each computed from whole logits."""
    run = prepared_run(**BY_PLACE, train__target=target)
    plain, model = objective_of(run)
    objective, _ = objective_of(run, some)
    rows = plain.batches(seed=1)[0]
    generator = torch.Generator().manual_seed(3)
    taken = plain.examples.take(rows, generator)
    candidates = plain._candidates(taken.bucket, taken.events, generator)
    compared = plain._compare(model, taken, ALONE.part(taken), candidates, generator)
    scores = compared.user @ compared.candidate.T / compared.temperature
    each = cross_entropy(scores, taken.events.item - 1, reduction="none")
    log = plain.log
    at = (log.user * 10**14 + log.time).sort()  # the generator has no two clicks of a user at once
    row = at.indices[torch.searchsorted(at.values, taken.events.user * 10**14 + taken.events.as_of)]
    weight = some(log)[row]
    assert (weight == 0).any()
    expected = (weight * each).sum() / weight.sum()
    model.zero_grad()
    expected.backward()
    gradient = model.item_id.weight.grad.clone()
    loss, gradients = loss_and_gradients(objective, model, rows)
    torch.testing.assert_close(loss, expected.detach())
    torch.testing.assert_close(gradients["item_id.weight"], gradient)


def rest(history):
    features = {"activity": {"enabled": False}, "history": {"length": history}}
    return BY_PLACE | {"features": features, "train__target": "rest"}


@torch.no_grad()
def test_users_all_of_whose_targets_weigh_0_have_no_loss(prepared_run):
    """The only item with a weight is in the random part that is the history, or is the target."""
    run = prepared_run(**rest(history=20))
    only = lambda log: (torch.arange(len(log.user)) == log.sequences()[0][0]).float()  # noqa: E731
    objective, model = objective_of(run, only)
    rows = replace(objective.batches(seed=1)[0], at=torch.tensor([0]))
    generator = torch.Generator().manual_seed(0)
    losses = [objective(model, rows, generator).item() for _ in range(30)]
    assert 0 < losses.count(0) < 30
    assert objective.examples.count == 1


def test_the_rest_of_a_users_items_counts_by_weight(prepared_run):
    """With weights of 0 and 1: the batch whose other events are the same without them."""
    run = prepared_run(**rest(history=0))
    objective, model = objective_of(run, lambda log: (some(log) > 1).float())
    rows = objective.batches(seed=1)[0]
    batch = objective.examples.take(rows, torch.Generator().manual_seed(3))
    users = model.users(batch.inputs)
    items = torch.arange(1, len(objective.log.created))
    found, _ = objective._embed_items(model, items, batch.bucket, torch.Generator())
    logits = users[batch.rows] @ found.T / model.temperature
    own = torch.zeros(len(users), len(items) + 1, dtype=torch.bool)
    own[batch.rows, batch.events.item] = True
    own = own[batch.rows].scatter(1, batch.events.item[:, None], False)[:, 1:]
    expected = cross_entropy(logits.masked_fill(own, -torch.inf), batch.events.item - 1)
    assert objective.examples.left_out[NO_WEIGHT] > 0
    torch.testing.assert_close(objective(model, rows, torch.Generator().manual_seed(3)), expected)


PADDED = {
    "events, in batch": {"loss": {"kind": "in_batch_softmax"}},
    "events, bce": {"loss": {"kind": "bce"}},
    "positions, full softmax": BY_PLACE,
    "positions, in batch, bpr": BY_PLACE
    | {"sampler": {"kind": "in_batch"}, "train__negatives": 1024, "loss": {"kind": "bpr"}},
}


@pytest.mark.parametrize("name", PADDED)
def test_padding_weighs_nothing(name, prepared_run, monkeypatch):
    run = prepared_run(**PADDED[name])
    objective, model = objective_of(run, some)
    rows = objective.batches(seed=1)[0]
    expected = loss_and_gradients(objective, model, rows)
    monkeypatch.setattr(shapes, "fixed", lambda device: True)
    objective, model = objective_of(run, some)
    padded = objective.batches(seed=1)[0]
    assert len(padded.at) > len(rows.at) or padded.events > rows.events
    torch.testing.assert_close(loss_and_gradients(objective, model, padded), expected)


@pytest.mark.parametrize("by_place", [False, True])
def test_events_of_weight_0_are_no_candidates_of_others(prepared_run, by_place):
    """And log-Q counts the other events only."""
    changes = {
        "sampler": {"kind": "in_batch"},
        "train__negatives": 1024,
        "loss": {"kind": "sampled_softmax"},
    }
    run = prepared_run(**(BY_PLACE if by_place else {}) | changes)
    objective, _ = objective_of(run, some)
    generator = torch.Generator().manual_seed(3)
    batch = objective.examples.take(objective.batches(seed=1)[0], generator)
    candidates = objective._candidates(batch.bucket, batch.events, generator)
    real = candidates.items[candidates.items > 0]
    assert candidates.items.tolist() == batch.events.item.tolist()
    ((_, _, log_number),) = candidates.samplers
    assert log_number.exp().item() == pytest.approx(len(real))
    assert (len(real) < len(batch.events.item)) == by_place
    assert (batch.events.weight[batch.events.item > 0] > 0).all()


def test_a_log_in_which_nothing_counts_is_refused(prepared_run, tmp_path):
    run = prepared_run(**FULL)
    samples = run.step("sample_negatives")
    prepared = load_prepared(samples)
    log = replace(prepared.log, weight=torch.zeros(len(prepared.log.user)))
    trainer = Trainer(
        run.config,
        replace(prepared, log=log),
        samples,
        torch.device("cpu"),
        tmp_path / "c.pt",
        lambda values, step: None,
    )
    with pytest.raises(DataError, match=r"all events are of weight 0 \(data\.weight\)"):
        trainer.fit()


@torch.no_grad()
def test_the_epoch_is_chosen_by_weighted_held_out_events(prepared_run):
    """Each held-out pair is a query; against a loop over the pairs."""
    run = prepared_run(train__metric="recall@20")
    samples = run.step("sample_negatives")
    prepared = load_prepared(samples)
    log = replace(prepared.log, weight=some(prepared.log))
    torch.manual_seed(0)
    model = TwoTower(run.config, prepared.schema, prepared.items).eval()
    queries = HeldOutQueries(run.config, log)
    got = queries.score(model, prepared)
    vectors = model.items(
        item_inputs(
            queries.known,
            prepared.items,
            queries.items,
            queries.as_of,
            run.config.features,
            prepared.scale,
        )
    )
    held_out = log.time >= queries.as_of
    hit = total = 0.0
    for user, item, weight in zip(
        log.user[held_out], log.item[held_out], log.weight[held_out].tolist(), strict=True
    ):
        if (queries.known.user == user).any() and (queries.items == item).any():
            (top,) = queries._top_rows(model, prepared, user[None], vectors)
            hit += weight * (queries.items[top] == item).any().item()
            total += weight
    assert 0 < got < 1
    assert got == pytest.approx(hit / total)
