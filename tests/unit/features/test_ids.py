import numpy as np
import pandas as pd
import pytest

from dssm_core.features.ids import Hashed, Ids


@pytest.mark.parametrize(
    ("values", "asked"),
    [([30, 10, 20, 10], [10, 20, 30, 40]), (["b", "a", "b", None], ["a", "b", "zz", None])],
)
def test_codes_are_sorted_and_unknown_is_zero(values, asked, tmp_path):
    ids = Ids.fit(pd.Series(values))
    expected = [1, 2, 3, 0] if values[0] == 30 else [1, 2, 0, 0]
    assert ids.encode(asked).tolist() == expected
    assert ids.encode(pd.Series(asked)).tolist() == expected
    ids.save(tmp_path / "ids.parquet", "item_id")
    assert Ids.load(tmp_path / "ids.parquet").encode(asked).tolist() == expected


def test_decode_is_the_way_back():
    ids = Ids.fit(pd.Series(["x", "y", "z"]))
    assert ids.decode(ids.encode(["z", "x"])).tolist() == ["z", "x"]
    assert len(ids) == 4


def test_hashing_codes_what_train_never_saw():
    hashed = Hashed(10)
    codes = hashed.encode(pd.Series(["a", None, "new", "a"]))
    assert codes[1] == 0
    assert codes[0] == codes[3]
    assert set(codes[[0, 2]]) <= set(range(1, 11))
    assert len(hashed) == 11
    spread = np.bincount(hashed.encode(pd.Series(range(10_000))), minlength=11)
    assert spread[0] == 0
    assert spread[1:].min() > 850  # a thousand each, deviation 30


def test_hash_codes_never_change():
    """They are part of a registered model: another platform or release must give the same."""
    assert Hashed(1000).encode(["a", "b", "7"]).tolist() == [267, 741, 770]
    assert Hashed(1000).encode_numbers(np.array([1, 2])).tolist() == [790, 731]


@pytest.mark.parametrize("same", [[7, None], [7.0, None], ["7", None]])
def test_a_number_is_one_value_whatever_its_type(same):
    assert Hashed(1000).encode(same).tolist() == Hashed(1000).encode(["7", None]).tolist()


def test_what_comes_later_has_codes_behind_in_the_order_it_comes():
    known = Ids(pd.Index(["b", "d"]))
    more = known.followed_by(pd.Series(["z", "b", None, "a", "z"]))
    assert more.encode(["b", "d", "z", "a", "q"]).tolist() == [1, 2, 3, 4, 0]
    assert more.first(len(known)).index.tolist() == ["b", "d"]
    assert more.after(len(known)).index.tolist() == ["z", "a"]
