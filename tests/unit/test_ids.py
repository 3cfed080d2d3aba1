import pandas as pd
import pytest

from dssm_core.ids import Ids


@pytest.mark.parametrize(("values", "asked"), [([30, 10, 20, 10], [10, 20, 30, 40]), (["b", "a", "b", None], ["a", "b", "zz", None])])
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
