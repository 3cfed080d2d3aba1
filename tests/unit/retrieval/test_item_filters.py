"""Conditions on item columns: what they select, and what is refused."""

import numpy as np
import pandas as pd
import pytest

from dssm_core.config import parse_config
from dssm_core.config.conditions import Condition, time_ms
from dssm_core.errors import ConfigError, DataError
from dssm_core.retrieval.item_filters import items_that_meet
from tests.conftest import small_config

ITEMS = {
    "category": pd.Series(["news", "sport", None, "7"]),
    "price": pd.Series([1.5, 20, np.nan, 7]),
    "created_at": pd.Series([0, 86_400_000, 2 * 86_400_000, 3 * 86_400_000]),
    "in_stock": pd.Series([True, False, True, False]),
    "tags": pd.Series([["a", "b"], [], None, ["b"]]),
}


@pytest.mark.parametrize(
    ("text", "rows"),
    [
        ("category == 'news'", [0]),
        ("category != 'news'", [1, 3]),
        ("category in ['news', 'sport']", [0, 1]),
        ("category not in ('news',)", [1, 2, 3]),
        ("category == 7", [3]),
        ("price < 20", [0, 3]),
        ("20 > price", [0, 3]),
        ("1.5 <= price < 20", [0, 3]),
        ("price == -1", []),
        ("created_at < '1970-01-02'", [0]),
        ("created_at >= '1970-01-02T00:00:00+00:00'", [1, 2, 3]),
        ("in_stock", [0, 2]),
        ("in_stock == false", [1, 3]),
        ("not in_stock", [1, 3]),
        ("in_stock and price < 2", [0]),
        ("in_stock or category == 'sport'", [0, 1, 2]),
        ("not (in_stock or price > 10)", [3]),
        ("'b' in tags", [0, 3]),
        ("'b' not in tags", [1, 2]),
    ],
)
def test_selected_rows(text, rows):
    assert np.flatnonzero(items_that_meet(Condition(text), ITEMS)).tolist() == rows


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "not an expression"),
        ("price <", "not an expression"),
        ("prise < 3", "did you mean 'price'"),
        ("price < 'cheap'", "compares 'price' with another type: give a number or a time"),
        ("in_stock == 1", "give true or false"),
        ("category == true", "give a text"),
        ("price", "give true or false|another type"),
        ("price + 1 < 3", "does not compare a column with a value"),
        ("__import__('os').system('x')", "is not a comparison"),
        ("price.real < 3", "does not compare"),
        ("(lambda: 1) == price", "number, a text"),
        ("price < 10 ** 10 ** 10", "number, a text"),
        ("[x for x in price] == 1", "does not compare"),
        ("3 < 4", "does not compare a column"),
        ("in_stock < true", "true or false by size"),
        ("not " * 60 + "in_stock", "nested more than"),
        ("price < 1 or " * 5000 + "price < 2", "10,000 or fewer"),
    ],
)
def test_what_is_refused(text, said):
    with pytest.raises(DataError, match=said) as refused:
        items_that_meet(Condition(text), ITEMS)
    assert len(str(refused.value)) < 500


def test_filters_of_a_config_are_checked_when_it_is_read():
    with pytest.raises(ConfigError, match=r"serving\.filters.*not an expression"):
        parse_config(small_config(serving={"filters": ["price <"]}))


def test_times():
    assert time_ms("1970-01-02") == 86_400_000
    assert time_ms("1970-01-01T01:00:00+01:00") == 0
    assert time_ms("soon") is None
