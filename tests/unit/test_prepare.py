from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from dssm_core.config import Feature
from dssm_core.errors import ConfigError, DataError
from dssm_core.ids import Ids
from dssm_core.prepare import _log, _shown, _table, encode_context

USERS = Ids.fit(pd.Series(["u1", "u2"]))
ITEMS = Ids.fit(pd.Series(["a", "b", "c"]))


def test_static_columns_by_hand(tmp_path):
    rows = pd.DataFrame({"item_id": ["c", "a", "zz"], "tags": ["x|y", "y", "new"], "kind": ["k", None, "new"], "price": [1.0, 3.0, 99.0]})
    features = (
        Feature(column="tags", kind="multi"),
        Feature(column="kind", kind="categorical"),
        Feature(column="price", kind="numeric"),
    )
    table, side = _table(features, rows, ITEMS, "item_id", tmp_path)
    # rows: unknown, a, b (not in the table), c; an item that train never saw ("zz") teaches nothing
    assert table.multi[:, 0].tolist() == [[0, 0], [2, 0], [0, 0], [1, 2]]
    assert table.categorical.tolist() == [[0], [0], [0], [1]]
    deviation = np.sqrt(2)  # of 3 and 1, with n - 1
    assert table.numeric[:, 0].tolist() == pytest.approx([0, 1 / deviation, 0, -1 / deviation])
    assert (side.multi[0].size, side.categorical[0].size, side.numeric) == (3, 2, 1)


def test_lists_need_no_separator(tmp_path):
    rows = pd.DataFrame({"item_id": ["a", "b"], "tags": [["x", "y"], []]})
    table, _ = _table((Feature(column="tags", kind="multi"),), rows, ITEMS, "item_id", tmp_path)
    assert table.multi[:, 0].tolist() == [[0, 0], [1, 2], [0, 0], [0, 0]]


def test_features_without_their_table_or_column_are_named(tmp_path):
    feature = (Feature(column="price", kind="numeric"),)
    with pytest.raises(ConfigError, match=r"features\.columns\.item names columns, but the source has no items table"):
        _table(feature, None, ITEMS, "item_id", tmp_path)
    with pytest.raises(DataError, match=r"the items table has no column 'price'.*it has kind"):
        _table(feature, pd.DataFrame({"item_id": ["a"], "kind": ["k"]}), ITEMS, "item_id", tmp_path)


def test_an_item_is_known_from_its_creation_else_its_first_click():
    rows = pd.DataFrame({"user_id": ["u1", "u2", "u1"], "item_id": ["a", "b", "b"], "timestamp": [10, 20, 30]})
    items = pd.DataFrame({"item_id": ["a", "b"], "created_at": [3.0, None]})
    log = _log(rows, {"user_id": USERS, "item_id": ITEMS}, torch.zeros(3, 0), items, (0, 100))
    assert log.created.tolist() == [100, 3, 20, 100]
    assert log.item.tolist() == [1, 2, 2]


def test_shown_rows_of_known_users_and_items_are_kept():
    rows = pd.DataFrame({"user_id": ["u2", "new", "u1", "u1"], "item_id": ["a", "a", "never clicked", "c"], "timestamp": [10, 20, 30, 40]})
    log = _log(rows[:1], {"user_id": USERS, "item_id": ITEMS}, torch.zeros(1, 0), None, (0, 100))
    log = replace(log, **_shown(rows, {"user_id": USERS, "item_id": ITEMS}))
    assert (log.shown_user.tolist(), log.shown_item.tolist(), log.shown_time.tolist()) == ([2, 1], [1, 3], [10, 40])
    assert log.before(40).shown_item.tolist() == [1]


def test_context_that_is_missing_is_unknown(tmp_path):
    Ids.fit(pd.Series(["app", "web"])).save(tmp_path / "vocabulary.context.device.parquet", "device")
    feature = (Feature(column="device", kind="categorical"),)
    assert encode_context(feature, pd.DataFrame({"device": ["web", "tv", None]}), tmp_path).tolist() == [[2], [0], [0]]
    assert encode_context(feature, pd.DataFrame({"other": [1]}), tmp_path).tolist() == [[0]]
    assert encode_context((), pd.DataFrame({"other": [1]}), tmp_path).shape == (1, 0)
