import torch

from dssm_core.batches import ByPlace, epoch_batches, length_batches, stretches, training_events
from dssm_core.config import parse_config
from dssm_core.features import Log, Table
from tests.conftest import small_config


def test_events_by_hand():
    """Refreshes at 10 and 20. Kept: an event after a refresh whose item was known before that refresh."""
    time = torch.tensor([5, 12, 13, 20, 25])
    item = torch.tensor([1, 1, 2, 2, 3])
    created = torch.tensor([99, 5, 13, 25])  # items 1, 2, 3 first clicked at 5, 13, 25
    log = Log(torch.arange(1, 6), item, time, torch.zeros(5, 0), created, torch.tensor([0, 30]))
    events = training_events(log, torch.tensor([10, 20]))
    assert events.user.tolist() == [2, 4]  # 5: before any refresh; 13 and 25: their items were not known yet
    assert events.bucket.tolist() == [0, 1]
    assert events.as_of.tolist() == [10, 20]


def test_without_activity_every_event_but_a_users_first_counts():
    user, item, time = torch.tensor([1, 2, 1, 1]), torch.tensor([1, 1, 2, 3]), torch.tensor([3, 4, 4, 4])
    log = Log(user, item, time, torch.zeros(4, 0), torch.tensor([9, 3, 4, 4]), torch.tensor([0, 9]))
    events = training_events(log, torch.tensor([0]))
    assert events.item.tolist() == [2, 3]
    assert events.bucket.tolist() == [0, 0]


def test_an_epoch_holds_each_event_once_in_batches_of_one_bucket():
    bucket = torch.tensor([0] * 7 + [2] * 12 + [3])
    batches = epoch_batches(bucket, 5, seed=1)
    assert sorted(torch.cat(batches).tolist()) == list(range(20))
    assert all(len(bucket[batch].unique()) == 1 and len(batch) <= 5 for batch in batches)
    assert sorted(len(batch) for batch in batches) == [1, 3, 4, 4, 4, 4]  # 7 = 3 + 4, 12 = 4 + 4 + 4, 1


def test_the_seed_decides_the_order():
    bucket = torch.zeros(100, dtype=torch.int64)
    one, same, other = (torch.cat(epoch_batches(bucket, 10, seed)).tolist() for seed in (1, 1, 2))
    assert one == same != other


def test_long_histories_are_cut_so_that_each_event_but_the_first_is_learned_once():
    """Users with 6, 1, 0 and 3 events, at most 2 places a stretch: the newest is whole, the oldest takes the rest."""
    begin, end = stretches(torch.tensor([0, 6, 7, 7, 10]), 2)
    assert sorted(zip(begin.tolist(), end.tolist(), strict=True)) == [(0, 2), (1, 4), (3, 6), (7, 10)]


def sequence_log():
    """User 1 takes 11, 12, 13 and user 2 takes 21, 22, in time order 11, 21, 12, 13, 22."""
    user, item = torch.tensor([1, 2, 1, 1, 2]), torch.tensor([1, 4, 2, 3, 5])
    context = torch.arange(1, 6)[:, None]
    return Log(user, item, torch.arange(5), context, torch.zeros(6, dtype=torch.int64), torch.tensor([0, 5]))


def by_place(**train):
    config = parse_config(small_config(features={"activity": {"enabled": False}}, sampler={"kind": "uniform"}, train=train))
    users = Table(torch.arange(3)[:, None] * 10, torch.zeros(3, 0, 1, dtype=torch.int64), torch.zeros(3, 0))
    return ByPlace(config, sequence_log(), users)


def test_every_place_is_an_event_toward_the_next():
    found = by_place()
    assert found.count == 3
    (rows,) = found.batches(100, seed=0)
    batch = found.take(rows.sort().values, torch.Generator())
    assert batch.inputs.history.tolist() == [[1, 2], [4, 0]]
    assert batch.inputs.categorical.tolist()[0] == [[10, 1], [10, 3]]  # the user's own column, then each event's context
    assert batch.events.user.tolist() == [1, 1, 2]
    assert batch.events.item.tolist() == [2, 3, 5]
    assert batch.places.tolist() == [0, 1, 2]
    torch.testing.assert_close(batch.inputs.numeric[0, :, -1], torch.tensor([1.0, 2.0]).log1p())


def test_toward_the_future_any_later_event_of_the_user_is_a_target():
    found = by_place(target="future")
    generator, seen = torch.Generator().manual_seed(0), set()
    for _ in range(50):
        items = found.take(torch.tensor([0]), generator).events.item.tolist()
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
