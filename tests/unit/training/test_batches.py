from dataclasses import replace

import pytest
import torch

from dssm_core.config import parse_config
from dssm_core.features.events import (
    BEFORE_FIRST_REFRESH,
    NO_WEIGHT,
    UNKNOWN_ITEM,
    left_out,
    training_events,
)
from dssm_core.features.inputs import ColumnTable
from dssm_core.features.interactions import Interactions
from dssm_core.training.batches import (
    SequenceExamples,
    UserExamples,
    random_part,
    stretches,
)
from dssm_core.training.epoch_order import Rows, epoch_batches, length_batches, sampled
from tests.conftest import small_config


def test_events_by_hand():
    """Refreshes at 10 and 20. Kept: an event after a refresh whose item was known before that
    refresh.
    """
    time = torch.tensor([5, 12, 13, 20, 25])
    item = torch.tensor([1, 1, 2, 2, 3])
    created = torch.tensor([99, 5, 13, 25])  # items 1, 2, 3 first clicked at 5, 13, 25
    log = Interactions(
        torch.arange(1, 6), item, time, torch.zeros(5, 0), created, torch.tensor([0, 30])
    )
    events = training_events(log, torch.tensor([10, 20]))
    assert events.user.tolist() == [
        2,
        4,
    ]  # 5: before any refresh; 13 and 25: their items were not known yet
    assert events.bucket.tolist() == [0, 1]
    assert events.as_of.tolist() == [10, 20]
    reasons = {BEFORE_FIRST_REFRESH: 1, UNKNOWN_ITEM: 2, NO_WEIGHT: 0}
    assert left_out(log, torch.tensor([10, 20])) == reasons
    weighted = replace(log, weight=torch.tensor([2.0, 0, 1, 0.5, 0]))
    events = training_events(weighted, torch.tensor([10, 20]))
    assert (events.user.tolist(), events.weight.tolist()) == ([4], [0.5])
    assert left_out(weighted, torch.tensor([10, 20])) == reasons | {NO_WEIGHT: 1}


def test_without_activity_every_event_but_a_users_first_counts():
    user, item, time = (
        torch.tensor([1, 2, 1, 1]),
        torch.tensor([1, 1, 2, 3]),
        torch.tensor([3, 4, 4, 4]),
    )
    log = Interactions(
        user, item, time, torch.zeros(4, 0), torch.tensor([9, 3, 4, 4]), torch.tensor([0, 9])
    )
    events = training_events(log, torch.tensor([0]))
    assert events.item.tolist() == [2, 3]
    assert events.bucket.tolist() == [0, 0]


def test_an_epoch_holds_each_event_once_in_batches_of_one_bucket():
    bucket = torch.tensor([0] * 7 + [2] * 12 + [3])
    batches = epoch_batches(bucket, 5, seed=1)
    assert sorted(torch.cat(batches).tolist()) == list(range(20))
    assert all(len(bucket[batch].unique()) == 1 and len(batch) <= 5 for batch in batches)
    assert sorted(len(batch) for batch in batches) == [
        1,
        3,
        4,
        4,
        4,
        4,
    ]  # 7 = 3 + 4, 12 = 4 + 4 + 4, 1


@pytest.mark.parametrize(("rows", "count"), [(1000, 300), (1000, 999), (7, 2), (1000, 1000)])
def test_each_epoch_takes_other_rows_and_all_are_taken_equally_often(rows, count):
    epochs = 60
    parts = [sampled(rows, count, epoch, seed=5) for epoch in range(epochs)]
    assert all(len(part.unique()) == count for part in parts)
    assert all(part.diff().min() > 0 for part in parts)
    gaps = parts[0].diff()
    assert gaps.min() >= rows // count
    assert gaps.max() <= -(-rows // count)  # evenly spaced
    times = torch.cat(parts).bincount(minlength=rows)
    assert times.min() >= epochs * count / rows - 2
    assert times.max() <= epochs * count / rows + 2
    if count < rows:
        assert len({tuple(part.tolist()) for part in parts}) > 2
    if count == 300:
        assert not torch.equal(parts[0], sampled(rows, count, 0, seed=6))
    assert torch.equal(parts[3], sampled(rows, count, 3, seed=5))


@pytest.mark.parametrize(
    ("kind", "train"), [(SequenceExamples, {}), (UserExamples, {"target": "rest"})]
)
def test_an_epoch_of_a_part_has_its_rows_only(kind, train):
    found = examples_of(kind, **train)
    part = torch.tensor([1])
    (rows,) = found.batches(100, seed=0, of=part)
    assert rows.at.tolist() == [1]
    assert found.take(rows, torch.Generator().manual_seed(0)).events.user.unique().tolist() == [2]


def test_the_seed_decides_the_order():
    bucket = torch.zeros(100, dtype=torch.int64)
    one, same, other = (torch.cat(epoch_batches(bucket, 10, seed)).tolist() for seed in (1, 1, 2))
    assert one == same != other


def test_long_histories_are_cut_so_that_each_event_but_the_first_is_learned_once():
    """Users with 6, 1, 0 and 3 events, at most 2 places a stretch: the newest is whole, the oldest
    takes the rest.
    """
    begin, end = stretches(torch.tensor([0, 6, 7, 7, 10]), 2)
    assert sorted(zip(begin.tolist(), end.tolist(), strict=True)) == [
        (0, 2),
        (1, 4),
        (3, 6),
        (7, 10),
    ]


def sequence_log():
    """User 1 takes 11, 12, 13 and user 2 takes 21, 22, in time order 11, 21, 12, 13, 22."""
    user, item = torch.tensor([1, 2, 1, 1, 2]), torch.tensor([1, 4, 2, 3, 5])
    context = torch.arange(1, 6)[:, None]
    return Interactions(
        user,
        item,
        torch.arange(5),
        context,
        torch.zeros(6, dtype=torch.int64),
        torch.tensor([0, 5]),
    )


def examples_of(kind=SequenceExamples, length=20, **train):
    features = {"activity": {"enabled": False}, "history": {"length": length}}
    config = parse_config(small_config(features=features, sampler={"kind": "uniform"}, train=train))
    users = ColumnTable(
        torch.arange(3)[:, None] * 10, torch.zeros(3, 0, 1, dtype=torch.int64), torch.zeros(3, 0)
    )
    return kind(config, sequence_log(), users)


def test_every_place_is_an_event_toward_the_next():
    found = examples_of()
    assert found.count == 3
    (rows,) = found.batches(100, seed=0)
    batch = found.take(replace(rows, at=rows.at.sort().values), torch.Generator())
    assert batch.inputs.history.tolist() == [[1, 2], [4, 0]]
    assert batch.inputs.categorical.tolist()[0] == [
        [10, 1],
        [10, 3],
    ]  # the user's own column, then each event's context
    assert batch.events.user.tolist() == [1, 1, 2]
    assert batch.events.item.tolist() == [2, 3, 5]
    assert batch.positions.tolist() == [0, 1, 2]
    torch.testing.assert_close(batch.inputs.numeric[0, :, -1], torch.tensor([1.0, 2.0]).log1p())


def test_toward_the_future_any_later_event_of_the_user_is_a_target():
    found = examples_of(target="future")
    generator, seen = torch.Generator().manual_seed(0), set()
    for _ in range(50):
        items = found.take(Rows(torch.tensor([0]), 2, 2), generator).events.item.tolist()
        assert items[1] == 3
        seen.add(items[0])
    assert seen == {2, 3}


def test_stretches_of_like_length_share_a_batch():
    lengths = torch.randint(1, 50, (1000,), generator=torch.Generator().manual_seed(0))
    batches = length_batches(lengths, 400, seed=3)
    assert sorted(torch.cat(batches).tolist()) == list(range(1000))
    padded = sum(int(lengths[batch].max()) * len(batch) for batch in batches)
    assert padded < 1.1 * int(lengths.sum())
    assert max(int(lengths[batch].sum()) for batch in batches) <= 400 + 49


def test_the_rest_of_a_users_items_is_learned_toward_and_never_in_the_history():
    found, generator, histories = (
        examples_of(UserExamples, target="rest"),
        torch.Generator().manual_seed(0),
        set(),
    )
    (rows,) = found.batches(100, seed=0)
    for _ in range(50):
        batch = found.take(replace(rows, at=rows.at.sort().values), generator)
        for row, items in enumerate(({1, 2, 3}, {4, 5})):
            shown = set(batch.inputs.history[row].tolist()) - {0}
            toward = batch.events.item[batch.rows == row].tolist()
            assert toward
            assert sorted([*shown, *toward]) == sorted(items)
            assert batch.inputs.numeric[row, -1].item() == torch.tensor(len(shown)).log1p().item()
            histories.add(frozenset(shown))
        assert batch.events.user.tolist() == [row + 1 for row in batch.rows.tolist()]
    assert histories == {
        frozenset(part) for part in ((), (1,), (2,), (3,), (1, 2), (1, 3), (2, 3), (4,), (5,))
    }


def test_without_a_history_the_rest_is_everything():
    found = examples_of(UserExamples, length=0, target="rest")
    batch = found.take(Rows(torch.tensor([0, 1]), 5), torch.Generator())
    assert found.count == 5
    assert batch.rows.tolist() == [0, 0, 0, 1, 1]
    assert batch.events.item.tolist() == [1, 2, 3, 4, 5]


def test_a_random_part_is_short_of_the_whole_and_as_long_as_it_may():
    row, generator = torch.tensor([0] * 50 + [2] * 3 + [3]), torch.Generator().manual_seed(1)
    drawn = torch.stack([random_part(row, 4, 10, generator) for _ in range(300)])
    sizes = (drawn[:, :50] >= 0).sum(1)
    assert sizes.max() == 10
    assert sizes.min() == 0
    assert set((drawn[:, 50:53] >= 0).sum(1).tolist()) == {0, 1, 2}
    assert (drawn[:, 53] == -1).all()
    for one in drawn[:20, :50]:
        assert sorted(one[one >= 0].tolist()) == list(range(int((one >= 0).sum())))
    share = (drawn[:, 50:53] >= 0).float().mean(0)  # each item equally often: (0 + 1 + 2) / 3 of 3
    torch.testing.assert_close(share, torch.full((3,), 1 / 3), atol=0.1, rtol=0)
