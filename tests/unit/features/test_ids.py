from decimal import Decimal

import numpy as np
import pandas as pd
import pytest

from dssm_core.features import ids as ids_module
from dssm_core.features.ids import Hashed, Ids, canonical_ids


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


@pytest.mark.parametrize("values", [[30, -7, 20, 2**62], ["b", "a", "ü", ""]])
def test_find_agrees_with_encode(values, tmp_path):
    """Also for ids that came after the vocabulary was fitted, and from the saved lookup."""
    ids = Ids.fit(pd.Series(values)).followed_by(pd.Series([values[0], type(values[0])(5)]))
    asked = [*values, type(values[0])(5), type(values[0])(6), None]
    expected = [*range(1, len(ids)), 0, 0]
    assert sorted(ids.find(asked).tolist(), key=lambda code: code or 99) == expected
    ids.save(tmp_path / "ids.parquet", "item_id", lookup=True)
    for each in (ids, Ids.load(tmp_path / "ids.parquet")):
        assert each.find(asked).tolist() == each.encode(pd.Series(asked, dtype=object)).tolist()


def test_two_ids_with_one_hash_are_told_apart(monkeypatch):
    monkeypatch.setattr(ids_module, "_keys", lambda values: np.zeros(len(values), np.uint64))
    ids = Ids(pd.Index(["a", "b", "c"]))
    assert ids.find(["c", "a", "x"]).tolist() == [3, 1, 0]


def test_an_empty_vocabulary_finds_nothing():
    assert Ids.fit(pd.Series([], dtype=str)).find(["a", None]).tolist() == [0, 0]


@pytest.mark.parametrize(
    ("value", "number", "text"),
    [
        (7, 7, "7"),
        (7.0, 7, "7"),
        (np.float64(7), 7, "7"),
        (np.int32(7), 7, "7"),
        (Decimal("7.0000000000"), 7, "7"),
        ("7", 7, "7"),
        ("7.0000", 7, "7.0000"),
        (7.5, None, "7.5"),
        ("7.5", None, "7.5"),
        ("x", None, "x"),
        (2**53 + 1, 2**53 + 1, str(2**53 + 1)),
        (10**30, None, str(10**30)),
        (float("nan"), None, None),
        (float("inf"), None, "inf"),
        ("1e999999999", None, "1e999999999"),
        (None, None, None),
        (pd.NA, None, None),
        (pd.NaT, None, None),
    ],
)
def test_an_id_has_one_form_whatever_type_it_comes_in(value, number, text):
    assert canonical_ids([value], whole_numbers=True) == [number]
    assert canonical_ids([value], whole_numbers=False) == [text]


@pytest.mark.parametrize(
    ("stored", "whole"),
    [
        (["10", "9", "-3", "0"], True),
        ([str(2**63 - 1), "1234567890123456789"], True),
        ([str(2**63), "1"], False),
        (["07", "1"], False),
        (["1.5", "1"], False),
        (["-0", "1"], False),
        (["1", "b"], False),
        (["1\n"], False),
        (["٣"], False),  # a digit that is none of 0 to 9
    ],
)
def test_text_ids_that_are_all_whole_numbers_come_back_as_such(stored, whole):
    ids = Ids(pd.Index(stored, dtype=object))
    assert ids.whole_numbers == whole
    codes = np.arange(1, len(ids))
    wanted = [int(text) for text in stored] if whole else stored
    assert ids.decode(codes).tolist() == wanted
    assert ids.find(canonical_ids(stored, ids.whole_numbers)).tolist() == codes.tolist()
    assert ids.encode(stored).tolist() == codes.tolist()
