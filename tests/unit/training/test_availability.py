"""An item that is not available at an event's time is no negative of it, in every loss."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from dssm_core import families
from dssm_core.config import Member
from dssm_core.errors import DataError
from dssm_core.families import LOSSES
from dssm_core.features.dataset import load_prepared
from dssm_core.features.inputs import users_as_of
from dssm_core.models.two_tower import TwoTower
from dssm_core.runs.run import create_run
from dssm_core.runs.transaction import execute
from dssm_core.training import fused_cross_entropy
from dssm_core.training.epoch_selection import HeldOutQueries
from dssm_core.training.logits import Availability, BatchVectors
from dssm_core.training.losses.full_softmax import FullSoftmax
from dssm_core.training.losses.sampled_softmax import SampledSoftmax, cross_entropy
from dssm_core.training.objective import Objective
from tests.unit.training.test_training import BEFORE_TRAINING, settings

DAY = 86_400_000
ALWAYS = torch.iinfo(torch.int64)
BY_PLACE = {"features__activity": {"enabled": False}, "sampler": {"kind": "uniform"}}
PHASES = {
    "by refresh": {},
    "own candidates": {
        "sampler": {"kind": "unseen"},
        "loss": {"kind": "bce", "log_q": False},
        "train__negatives": 5,
    },
    "in batch": {"loss": {"kind": "in_batch_softmax"}},
    "by place": BY_PLACE,
    "rest": BY_PLACE | {"train__target": "rest", "features__columns": {}},
    "full softmax": {"loss": {"kind": "full_softmax"}, "train__negatives": 1024},
}


@pytest.fixture(scope="module")
def prepared_run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")

    def make(name):
        run = create_run(settings(**PHASES[name]), folder, name.replace(" ", "-"))
        for step in BEFORE_TRAINING:
            execute(run, step)
        return run

    return make


def with_times(log, since, until):
    return replace(log, available_from=since, available_until=until)


def random_times(log, seed=0):
    """Items that end, items that start, items that always are, and items that do both."""
    rng = np.random.default_rng(seed)
    n = len(log.created)
    first, last = np.sort(rng.integers(log.start, log.end, (2, n)), axis=0)
    since = np.where(rng.random(n) < 0.5, first, ALWAYS.min)
    until = np.where(rng.random(n) < 0.5, last, ALWAYS.max)
    return torch.from_numpy(since), torch.from_numpy(until)


def compared(availability=None, own=False):
    generator = torch.Generator().manual_seed(0)
    rows = (3, 4, 2) if own else (4, 2)
    candidate = torch.randn(*rows, generator=generator).requires_grad_()
    return BatchVectors(
        user=torch.randn(3, 2, generator=generator),
        own=torch.randn(3, 2, generator=generator),
        candidate=candidate,
        temperature=torch.ones(()),
        own_items=torch.tensor([9, 9, 9]),
        candidate_items=torch.tensor([[1, 2, 3, 4]] * 3 if own else [1, 2, 3, 4]),
        log_count_positive=torch.zeros(3),
        log_count_negative=torch.zeros(candidate.shape[:-1]),
        catalogue=9,
        availability=availability,
    )


# Four candidates: always, until 20, from 20 on, from 10 to 30. Events at 5, 20 and 30.
SINCE = torch.tensor([ALWAYS.min, ALWAYS.min, 20, 10])
UNTIL = torch.tensor([ALWAYS.max, 20, ALWAYS.max, 30])
EVENTS = torch.tensor([5, 20, 30])
OUT = [[False, False, True, True], [False, True, False, False], [False, True, False, True]]


@pytest.mark.parametrize("own", [False, True])
def test_candidates_are_negatives_from_their_first_to_before_their_last_moment(own):
    shape = (3, 4) if own else (4,)
    times = Availability(SINCE.expand(shape), UNTIL.expand(shape), EVENTS, EVENTS)
    given = compared(times, own)
    assert given.masked(torch.zeros(2, 4), slice(1, 3)).isneginf().tolist() == OUT[1:]
    assert (given.logits.negative == -torch.inf).tolist() == OUT


def test_a_candidate_of_events_that_share_a_user_must_be_available_at_all_of_them():
    times = Availability(SINCE, UNTIL, torch.tensor([5, 20]), torch.tensor([20, 25]))
    given = compared(times)._replace(user=torch.randn(2, 2), rows=torch.tensor([0, 0, 1]))
    first, second = [False, True, True, True], [False, True, False, False]
    assert given.masked(torch.zeros(2, 4)).isneginf().tolist() == [first, second]
    assert (given.logits.negative == -torch.inf).tolist() == [first, first, second]


@pytest.mark.parametrize("kind", sorted(LOSSES))
def test_no_loss_moves_a_candidate_that_has_ended(kind):
    """The second candidate ended before all events."""
    ended = torch.tensor([0, 4, 0, 0])
    times = Availability(SINCE - SINCE, torch.where(ended > 0, ended, 99), EVENTS, EVENTS)
    given = compared(times)
    loss = families.build(LOSSES, Member(kind=kind))
    for value in (loss(given.logits), loss.fused(given)):
        if value is None:
            continue
        (gradient,) = torch.autograd.grad(value, given.candidate)
        assert (gradient[1] == 0).all()
        assert (gradient[[0, 2, 3]] != 0).any()
        assert gradient.isfinite().all()


@pytest.mark.parametrize("at_once", [1, 10**6])
@pytest.mark.parametrize("rows", [None, torch.tensor([0, 0, 1])], ids=["own user", "shared user"])
@pytest.mark.parametrize("loss", [SampledSoftmax(), FullSoftmax()], ids=repr)
def test_the_fused_softmax_is_that_of_the_logits(monkeypatch, loss, rows, at_once):
    monkeypatch.setitem(fused_cross_entropy.LOGITS_AT_ONCE, "cpu", at_once)
    events = EVENTS if rows is None else EVENTS[1:]
    given = compared(Availability(SINCE, UNTIL, events, events))
    given = given._replace(user=given.user[: len(events)].requires_grad_(), rows=rows)
    whole = given._replace(own_items=torch.tensor([2, 4, 1]), whole=True)
    for case in (given, whole):
        one, other = loss.fused(case), loss(case.logits)
        torch.testing.assert_close(one, other)
        of = (case.user, case.candidate)
        torch.testing.assert_close(torch.autograd.grad(one, of), torch.autograd.grad(other, of))


def test_log_q_estimates_the_softmax_over_the_available_items():
    """Items are drawn from all 50; those of even codes have ended."""
    generator = torch.Generator().manual_seed(0)
    vectors = torch.randn(51, 1, generator=generator)
    q = torch.rand(51, generator=generator) ** 3 + 1e-3
    q[0] = 0
    q /= q.sum()
    count = 2_000_000
    drawn = torch.multinomial(q, count, replacement=True, generator=generator)
    until = torch.where(drawn % 2 == 0, 5, 99)
    moment = torch.tensor([10])
    given = BatchVectors(
        user=torch.ones(1, 1),
        own=vectors[7:8],
        candidate=vectors[drawn],
        temperature=torch.ones(()),
        own_items=torch.tensor([7]),
        candidate_items=drawn,
        log_count_positive=torch.zeros(1),
        log_count_negative=np.log(count) + q[drawn].log(),
        catalogue=50,
        availability=Availability(torch.zeros_like(drawn), until, moment, moment),
    )
    wanted = vectors[1::2, 0].logsumexp(0) - vectors[7, 0]
    assert SampledSoftmax().fused(given).item() == pytest.approx(wanted.item(), abs=0.02)


@torch.no_grad()
@pytest.mark.parametrize("name", sorted(PHASES))
def test_no_batch_has_a_negative_that_is_not_available(name, prepared_run, monkeypatch):
    """A loop over events and candidates; and the own item stays, available or not."""
    run = prepared_run(name)
    samples = run.step("sample_negatives")
    prepared = load_prepared(samples)
    since, until = random_times(prepared.log)
    model = TwoTower(run.config, prepared.schema, prepared.items).eval()
    left_out, other_losses = [], []
    for log in (prepared.log, with_times(prepared.log, since, until)):
        objective = Objective(run.config, prepared, log, samples, "refit")
        batches = []
        real = objective._compare

        def spy(*given, real=real, batches=batches):
            batches.append((given[1], given[3], real(*given)))
            return batches[-1][2]

        monkeypatch.setattr(objective, "_compare", spy)
        rows = objective.examples.batches(64, 0)[0]
        other_losses.append(objective(model, rows, torch.Generator().manual_seed(3)))
        batch, candidates, vectors = batches[0]
        left_out.append(vectors.logits.negative == -torch.inf)
    items = candidates.items.expand(left_out[0].shape).tolist()
    times = batch.events.as_of
    row = torch.arange(len(times)) if batch.rows is None else batch.rows
    starts, ends = since.tolist(), until.tolist()
    missing = torch.tensor(
        [
            [not starts[item] <= min(moments) <= max(moments) < ends[item] for item in listed]
            for listed, moments in zip(
                items, [times[row == mine].tolist() for mine in row], strict=True
            )
        ]
    )
    assert missing.any()
    assert not missing.all()
    assert torch.equal(left_out[1], left_out[0] | missing)
    assert vectors.logits.positive.isfinite().all()
    assert other_losses[0] != other_losses[1]


@torch.no_grad()
def test_limits_that_nothing_meets_change_nothing(prepared_run):
    run = prepared_run("by refresh")
    samples = run.step("sample_negatives")
    prepared = load_prepared(samples)
    assert not prepared.log.timed_items
    model = TwoTower(run.config, prepared.schema, prepared.items).eval()
    created = prepared.log.created
    limits = torch.full_like(created, ALWAYS.min), torch.full_like(created, ALWAYS.max)
    losses = []
    for log in (prepared.log, with_times(prepared.log, *limits)):
        objective = Objective(run.config, prepared, log, samples, "refit")
        rows = objective.examples.batches(64, 0)[0]
        losses.append(objective(model, rows, torch.Generator().manual_seed(3)))
    assert losses[0].item() == losses[1].item()


@torch.no_grad()
@pytest.mark.parametrize("exclude_seen", [False, True])
def test_the_epoch_is_chosen_by_lists_of_available_items(prepared_run, exclude_seen):
    run = prepared_run("by refresh")
    prepared = load_prepared(run.step("sample_negatives"))
    train = run.config.train.model_copy(update={"metric": "recall@20"})
    evaluation = run.config.evaluation.model_copy(update={"exclude_seen": exclude_seen})
    config = run.config.model_copy(update={"train": train, "evaluation": evaluation})
    log = with_times(prepared.log, *random_times(prepared.log))
    queries = HeldOutQueries(config, log)
    moment = queries.as_of
    listed = [
        code
        for code in range(1, len(log.created))
        if log.created[code] < moment
        and log.available_from[code] <= moment < log.available_until[code]
    ]
    assert 0 < len(listed) < len(log.created) - 1
    assert queries.items.tolist() == listed
    torch.manual_seed(0)
    model = TwoTower(config, prepared.schema, prepared.items).eval()
    assert queries.score(model, prepared) == pytest.approx(
        recall_by_hand(config, log, prepared, model, queries.items, moment), abs=1e-6
    )


def recall_by_hand(config, log, prepared, model, items, moment):
    from dssm_core.features.inputs import item_inputs

    known = log.before(moment)
    features = config.features
    vectors = model.items(
        item_inputs(known, prepared.items, items, moment, features, prepared.scale)
    )
    recalls = []
    late = log.time >= moment
    for user in sorted(set(log.user[late].tolist()) & set(known.user.tolist())):
        wanted = set(log.item[late & (log.user == user)].tolist()) & set(items.tolist())
        if not wanted:
            continue
        asked = torch.tensor([user]), torch.tensor([moment])
        query = model.users(users_as_of(known, prepared.users, *asked, features))
        scores = (query @ vectors.T)[0]
        if config.evaluation.exclude_seen:
            scores[torch.isin(items, known.item[known.user == user])] = -torch.inf
        top = set(items[scores.topk(20).indices].tolist())
        recalls.append(len(wanted & top) / len(wanted))
    return np.mean(recalls)


def test_a_validation_slice_without_any_available_item_is_named(prepared_run):
    run = prepared_run("by refresh")
    log = load_prepared(run.step("sample_negatives")).log
    never = torch.zeros_like(log.created)
    with pytest.raises(DataError, match=r"available at its start.*check the times of the items"):
        HeldOutQueries(run.config, with_times(log, never, never))


def test_cross_entropy_of_an_event_without_any_candidate_left_is_0():
    never = torch.zeros(4, dtype=torch.int64)
    given = compared(Availability(never, never, EVENTS, EVENTS))
    assert cross_entropy(given.logits).item() == 0
    assert FullSoftmax().fused(given).item() == 0
