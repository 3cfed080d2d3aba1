from dataclasses import replace

import pandas as pd
import torch

from dssm_core.features.ids import Ids
from dssm_core.sampling.sample_negatives import _log, _shown

USERS = Ids.fit(pd.Series(["u1", "u2"]))
ITEMS = Ids.fit(pd.Series(["a", "b", "c"]))


def test_an_item_is_known_from_its_creation_else_its_first_click():
    rows = pd.DataFrame(
        {"user_id": ["u1", "u2", "u1"], "item_id": ["a", "b", "b"], "timestamp": [10, 20, 30]}
    )
    items = pd.DataFrame({"item_id": ["a", "b"], "created_at": [3.0, None]})
    log = _log(rows, {"user_id": USERS, "item_id": ITEMS}, torch.zeros(3, 0), items, (0, 100))
    assert log.created.tolist() == [100, 3, 20, 100]
    assert log.item.tolist() == [1, 2, 2]


def test_availability_by_code_without_limits_where_there_are_none():
    rows = pd.DataFrame({"user_id": ["u1"], "item_id": ["a"], "timestamp": [10]})
    ids, limits = {"user_id": USERS, "item_id": ITEMS}, torch.iinfo(torch.int64)
    items = pd.DataFrame({"item_id": ["c", "a"], "available_until": [50.0, None]})
    log = _log(rows, ids, torch.zeros(1, 0), items, (0, 100))
    assert log.available_from.tolist() == [limits.min] * 4
    assert log.available_until.tolist() == [limits.max, limits.max, limits.max, 50]
    assert log.before(40).available(49).tolist() == [True] * 4
    assert log.available(50).tolist() == [True, True, True, False]
    plain = _log(rows, ids, torch.zeros(1, 0), items[["item_id"]], (0, 100))
    assert not plain.timed_items
    assert plain.available(50).tolist() == [True] * 4


def test_shown_rows_of_known_users_and_items_are_kept():
    rows = pd.DataFrame(
        {
            "user_id": ["u2", "new", "u1", "u1"],
            "item_id": ["a", "a", "never clicked", "c"],
            "timestamp": [10, 20, 30, 40],
        }
    )
    log = _log(rows[:1], {"user_id": USERS, "item_id": ITEMS}, torch.zeros(1, 0), None, (0, 100))
    log = replace(log, **_shown(rows, {"user_id": USERS, "item_id": ITEMS}))
    assert (log.shown_user.tolist(), log.shown_item.tolist(), log.shown_time.tolist()) == (
        [2, 1],
        [1, 3],
        [10, 40],
    )
    assert log.before(40).shown_item.tolist() == [1]
