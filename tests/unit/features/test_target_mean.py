"""Target means as of a moment, by hand and against a loop: the event itself and all later rows are
left out.
"""

import numpy as np
import pandas as pd
import pytest
import torch

from dssm_core.config import Feature, Features
from dssm_core.errors import DataError
from dssm_core.features.ids import Ids
from dssm_core.features.inputs import ColumnTable, item_inputs, users_as_of
from dssm_core.features.interactions import Interactions
from dssm_core.features.target_mean import fit_target_means, with_time_keys
from dssm_core.features.tensors import as_named, from_named
from dssm_core.features.time_keys import TimeKeys

ITEMS = Ids.fit(pd.Series(["a", "b", "c", "d"]))
TABLE = pd.DataFrame({"item_id": ["a", "b", "c"], "section": ["x", "y", "x"]})
TRAIN = pd.DataFrame(
    {
        "user_id": ["u"] * 6,
        "item_id": ["a", "c", "b", "a", "never clicked", "b"],
        "timestamp": [100, 101, 102, 103, 104, 105],
        "label": [1, 0, 1, 1, 0, 0],
        "rating": [5.0, 1.0, 4.0, None, 2.0, 2.0],
    }
)
SECTION = Feature(column="section", kind="target_mean", smoothing=2)
WINDOW = (100, 110)


def means(*features, train=TRAIN):
    return fit_target_means(features, "item", TABLE, ITEMS, train, WINDOW)


def ask(fitted, items, moment):
    codes = torch.from_numpy(ITEMS.encode(items))
    return fitted.as_of(codes, torch.full_like(codes, moment))[:, 0].tolist()


def test_means_by_hand():
    fitted, deviation = means(SECTION), 0.5  # of 1, 0, 1, 1, 0, 0
    # before 103: x has 1 and 0, y has 1; the mean of all three is 2/3
    x, y = (1 - 2 * 2 / 3) / (2 + 2), (1 - 2 / 3) / (1 + 2)
    assert ask(fitted, ["a", "b", "c", "d", "zz"], 103) == pytest.approx(
        [x / deviation, y / deviation, x / deviation, 0, 0]
    )
    # at the end: x has 1, 0, 1, y has 1, 0; the mean of all is 1/2, with the row of an item that
    # has no code
    assert ask(fitted, ["a", "b"], 110) == pytest.approx([(2 - 1.5) / 5 / deviation, 0])
    assert ask(fitted, ["a", "b"], 100) == [0, 0]  # nothing is known yet


def test_the_event_s_own_row_is_no_part_of_its_mean():
    """What happened at 102 changes nothing that is seen at 102, but something at 103."""
    other = TRAIN.assign(label=[1, 0, 0, 1, 0, 0])
    one, two = (means(SECTION, train=train) for train in (TRAIN, other))
    assert ask(one, ["b"], 102) == ask(two, ["b"], 102)
    assert ask(one, ["b"], 103) != ask(two, ["b"], 103)


def test_ids_numbers_and_several_features_stand_side_by_side():
    own = Feature(column="item_id", kind="target_mean", target="rating", smoothing=1)
    fitted = means(SECTION, own)
    got = fitted.as_of(torch.tensor([0, 1, 2]), torch.tensor([110] * 3))
    ratings = np.array([5.0, 1, 4, 2, 2])  # a row without a rating has no part in it
    a, b = (5 - ratings.mean()) / 2, (6 - 2 * ratings.mean()) / 3
    assert got[:, 1].tolist() == pytest.approx([0, a / ratings.std(), b / ratings.std()])
    assert got[:, 0].tolist() == pytest.approx([0, *ask(means(SECTION), ["a", "b"], 110)])


def test_means_equal_a_loop():
    rng = np.random.default_rng(0)
    ids = Ids.fit(pd.Series(range(9)))
    table = pd.DataFrame({"item_id": range(9), "section": rng.choice(["x", "y", None], 9)})
    train = pd.DataFrame(
        {
            "item_id": rng.integers(0, 9, 300),
            "timestamp": rng.integers(100, 200, 300),
            "label": rng.integers(0, 2, 300),
        }
    )
    fitted = fit_target_means((SECTION,), "item", table, ids, train, (100, 200))
    section = dict(zip(table["item_id"], table["section"], strict=True))
    for moment in (100, 101, 137, 150, 200):
        got = fitted.as_of(torch.arange(1, 10), torch.full((9,), moment))[:, 0]
        known = train[train["timestamp"] < moment]
        for item in range(9):
            own = (
                known["label"][[section[other] == section[item] for other in known["item_id"]]]
                if section[item]
                else known["label"][:0]
            )
            general = known["label"].mean() if len(known) else 0
            expected = (
                (own.sum() - len(own) * general) / (len(own) + 2) / train["label"].std(ddof=0)
            )
            assert got[item].item() == pytest.approx(expected, abs=1e-6)


def test_towers_see_them_as_of_the_refresh_on_both_sides():
    empty = torch.zeros(5, 0, dtype=torch.int64)
    table = ColumnTable(
        empty, torch.zeros(5, 0, 1, dtype=torch.int64), torch.zeros(5, 0), means(SECTION)
    )
    one = torch.tensor([1])
    log = Interactions(
        one,
        one,
        torch.tensor([100]),
        torch.zeros(1, 0).long(),
        torch.full((5,), 100),
        torch.tensor(WINDOW),
    )
    scale = torch.stack([torch.zeros(7), torch.ones(7)])
    codes = torch.tensor([1, 2])
    expected = pytest.approx(ask(means(SECTION), ["a", "b"], 103))
    assert item_inputs(log, table, codes, 103, Features(), scale).numeric[:, 0].tolist() == expected
    assert (
        users_as_of(log, table, codes, torch.tensor([103, 103]), Features()).numeric[:, 0].tolist()
        == expected
    )
    again = from_named(ColumnTable, "items", as_named("items", table))
    assert again.means.as_of(codes, torch.tensor([103, 103]))[:, 0].tolist() == expected


def test_a_target_that_never_differs_is_refused():
    with pytest.raises(
        DataError, match=r"'label' of the target mean .* only one value in train.*such as a rating"
    ):
        means(SECTION, train=TRAIN.assign(label=1))


def test_means_need_refreshes():
    columns = {"item": [{"column": "section", "kind": "target_mean"}]}
    with pytest.raises(ValueError, match="target_mean of section is taken as of each refresh"):
        Features.model_validate({"columns": columns, "activity": {"enabled": False}})


def test_means_that_older_code_wrote_are_read():
    """Their keys are group * span + ms since the start of the window."""
    window = torch.tensor([1000, 1099])
    key = torch.tensor([1 * 100 + 7, 1 * 100 + 7, 1 * 100 + 50, 2 * 100 + 3])
    older = {"users.means.key": key, "users.means.window": window, "scale": torch.zeros(2, 0)}
    tensors = with_time_keys(older)
    assert "users.means.key" not in tensors
    keys = from_named(TimeKeys, "users.means.keys", tensors)
    groups, moments = torch.tensor([1, 1, 1, 2, 2]), torch.tensor([1007, 1008, 1099, 1003, 1004])
    assert (keys.before(groups, moments) - keys.begin(groups)).tolist() == [0, 2, 3, 0, 1]
    assert with_time_keys(tensors).keys() == tensors.keys()
