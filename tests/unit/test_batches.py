import torch

from dssm_core.batches import epoch_batches, training_events
from dssm_core.features import Log


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


def test_without_activity_every_event_counts_as_of_itself():
    log = Log(
        torch.tensor([1, 2]), torch.tensor([1, 1]), torch.tensor([3, 4]), torch.zeros(2, 0), torch.tensor([9, 3]), torch.tensor([0, 9])
    )
    events = training_events(log, torch.tensor([0]))
    assert events.as_of.tolist() == [3, 4]
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
