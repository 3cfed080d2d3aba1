"""Settings that distinguish items: one message says all that is wrong, with one set of
changes that corrects it.
"""

from __future__ import annotations

import re
from itertools import product

import pytest

from dssm_core.config import parse_config
from dssm_core.config.merge import merge, nested
from dssm_core.config.yaml_text import load_yaml
from dssm_core.errors import ConfigError
from tests.conftest import small_config

KIND = {"column": "kind", "kind": "categorical"}
CHANGE = re.compile(r"((?:features|train)\.[a-z_.]+): ([a-z0-9.]+)(?:, |$)")


def raw_config(item_ids, catalogue, described, fields, length, dropout):
    features = {
        "item_ids": item_ids,
        "catalogue": catalogue,
        "columns": {"item": [KIND] if described else []},
        "history": {"fields": fields, "length": length},
    }
    return small_config(features=features, train__id_dropout=dropout)


@pytest.mark.parametrize(
    "chosen",
    product([True, False], ["positives", "table"], [True, False], [True, False], [20], [0.0, 0.1]),
)
def test_a_config_is_valid_or_the_changes_of_its_one_message_make_it_valid(chosen):
    raw = raw_config(*chosen)
    try:
        parse_config(raw)
    except ConfigError as error:
        (message,) = str(error).splitlines()
        changes = CHANGE.findall(message.partition(" Set ")[2])
        assert changes
        for path, value in changes:
            raw = merge(raw, nested(path.split("."), load_yaml(value)))
        parse_config(raw)
    else:
        item_ids, catalogue, described, fields, _, dropout = chosen
        assert item_ids or (described and fields and not dropout)
        assert described or not fields
        assert catalogue == "positives" or (described and (dropout or not item_ids))


def test_all_problems_are_in_one_message():
    with pytest.raises(ConfigError) as error:
        parse_config(raw_config(False, "table", False, True, 20, 0.1))
    assert str(error.value) == (
        "features.history.fields shows columns of items, but features.columns.item is empty;"
        " features.item_ids is false and features.columns.item is empty: nothing distinguishes"
        " items;"
        " train.id_dropout hides item ids, which features.item_ids leaves out already;"
        " features.catalogue 'table' serves items without a positive in train, which only"
        " features.columns.item distinguishes, and it is empty."
        " Set features.item_ids: true, features.history.fields: false,"
        " features.catalogue: positives"
    )


def test_a_table_needs_id_dropout_to_train_the_unknown_id():
    with pytest.raises(ConfigError, match=r"and it is 0\. Set train\.id_dropout: 0\.1$"):
        parse_config(raw_config(True, "table", True, False, 20, 0.0))


def test_without_histories_the_setting_of_histories_is_left_alone():
    with pytest.raises(ConfigError) as error:
        parse_config(raw_config(False, "positives", True, False, 0, 0.1))
    assert str(error.value).endswith("leaves out already. Set train.id_dropout: 0.0")
