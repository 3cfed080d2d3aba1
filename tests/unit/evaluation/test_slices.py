"""Parts of the test rows, counted by hand."""

import numpy as np

from dssm_core.columns import DAY_MS
from dssm_core.evaluation.slices import groups
from dssm_core.features.popularity import Clicks

CUTOFF = 10 * DAY_MS


def clicks(*rows):
    users, items, days = zip(*rows, strict=True)
    times = (np.asarray(days) * DAY_MS).astype(np.int64)
    return Clicks(np.array(users), np.array(items), times, 5)


# Item 0 has 8 of 10 positives; 1 is from the last day; 3 from days before; 2 and 4 nobody took.
# User 1 took 8.
TRAIN = clicks(*[(1, 0, 2)] * 8, (2, 1, 9.5), (3, 3, 8))


def test_every_part_by_hand():
    codes = np.array([1, 2, 0, 3, 1, 4])
    rows = np.array([1, 0, 3, -1, 2, 1])
    found = {
        name: mask.astype(int).tolist() for name, mask in groups(TRAIN, codes, rows, CUTOFF).items()
    }
    assert found == {
        "new_users": [0, 0, 1, 0, 0, 1],
        "heavy_users": [1, 0, 0, 0, 1, 0],
        "fresh_items": [1, 0, 0, 0, 0, 1],
        "tail_items": [1, 0, 1, 0, 0, 1],
    }


def test_without_a_cutoff_nothing_is_fresh():
    assert set(groups(TRAIN, np.array([1]), np.array([0]), None)) == {
        "new_users",
        "heavy_users",
        "tail_items",
    }


def test_nobody_took_anything():
    empty = Clicks(*(np.zeros(0, dtype=np.int64) for _ in range(3)), 5)
    found = groups(empty, np.array([0, 1]), np.array([0, -1]), CUTOFF)
    assert found["new_users"].all()
    assert not any(found[name].any() for name in ("heavy_users", "fresh_items", "tail_items"))
