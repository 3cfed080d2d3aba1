"""Static columns by hand: what is fitted on train, what is hashed, shared and refused."""

import numpy as np
import pandas as pd
import pytest
import torch

from dssm_core.config import Feature, FeatureColumns, Features
from dssm_core.errors import ConfigError, DataError
from dssm_core.features.ids import Hashed, Ids
from dssm_core.features.ordered_rows import OrderedRows
from dssm_core.features.schema import Column, Schema, TowerColumns
from dssm_core.features.tables import (
    check_embedding_sizes,
    encode_context,
    encode_table,
    extend_table,
    fit_context,
    fit_table,
)
from dssm_core.features.tensors import as_named
from dssm_core.features.trigrams import trigrams

USERS = Ids.fit(pd.Series(["u1", "u2"]))
ITEMS = Ids.fit(pd.Series(["a", "b", "c"]))


def features(item=(), user=(), context=(), **changes):
    return Features(columns=FeatureColumns(item=item, user=user, context=context), **changes)


def items(folder, *of, **columns):
    return fit_table(
        features(item=of),
        "item",
        pd.DataFrame({"item_id": ["c", "a", "zz"]} | columns),
        ITEMS,
        folder,
    )


def test_static_columns_by_hand(tmp_path):
    table, side = items(
        tmp_path,
        Feature(column="tags", kind="multi"),
        Feature(column="kind", kind="categorical"),
        Feature(column="price", kind="numeric"),
        tags=["x|y", "y", "new"],
        kind=["k", None, "new"],
        price=[1.0, 3.0, 99.0],
    )
    # rows: unknown, a, b (not in the table), c; an item that train never saw ("zz") teaches nothing
    assert table.multi[:, 0].tolist() == [[0, 0], [2, 0], [0, 0], [1, 2]]
    assert table.categorical.tolist() == [[0], [0], [0], [1]]
    deviation = np.sqrt(2)  # of 3 and 1, with n - 1
    assert table.numeric[:, 0].tolist() == pytest.approx([0, 1 / deviation, 0, -1 / deviation])
    assert side.multi == (Column(column="tags", size=3, dim=8, values=2),)
    assert (side.categorical[0].size, side.numeric) == (2, 1)


def test_lists_need_no_separator(tmp_path):
    rows = pd.DataFrame({"item_id": ["a", "b"], "tags": [["x", "y"], []]})
    table, _ = fit_table(
        features(item=(Feature(column="tags", kind="multi"),)), "item", rows, ITEMS, tmp_path
    )
    assert table.multi[:, 0].tolist() == [[0, 0], [1, 2], [0, 0], [0, 0]]


def test_text_is_its_trigrams_in_buckets(tmp_path):
    titles = ["Good day", "good", None]
    table, side = items(tmp_path, Feature(column="title", kind="text", buckets=50), title=titles)
    row, numbers = trigrams(pd.Series(titles))
    codes = Hashed(50).encode_numbers(numbers)
    assert table.multi[3, 0].tolist() == codes[row == 0].tolist()  # c: #go goo ood od# #da day ay#
    assert table.multi[1, 0].tolist() == [
        *codes[row == 1].tolist(),
        0,
        0,
        0,
    ]  # a: the first four of them
    assert side.multi == (Column(column="title", size=51, dim=8, values=7),)
    assert (
        items(tmp_path, Feature(column="title", kind="text"), title=titles)[1].multi[0].size
        == 30_001
    )


def test_most_keeps_the_first_values(tmp_path):
    several = Feature(column="tags", kind="multi", most=2)
    assert items(tmp_path, several, tags=["c|a|b", "b", None])[0].multi[:, 0].tolist() == [
        [0, 0],
        [2, 0],
        [0, 0],
        [3, 1],
    ]


@pytest.mark.parametrize("kind", ["categorical", "multi"])
def test_hashed_columns_need_no_vocabulary_and_code_new_values(tmp_path, kind):
    feature = Feature(column="tags", kind=kind, buckets=20)
    table, side = items(tmp_path, feature, tags=["x", None, "y"])
    assert not list(tmp_path.iterdir())
    column = side.categorical[0] if kind == "categorical" else side.multi[0]
    assert column.size == 21
    codes = table.categorical[:, 0] if kind == "categorical" else table.multi[:, 0, 0]
    assert codes.tolist() == [0, 0, 0, *Hashed(20).encode(["x"])]
    new = encode_table(
        FeatureColumns(item=(feature,)), "item", pd.DataFrame({"tags": ["never seen"]}), tmp_path
    )
    assert [*new.categorical.flatten(), *new.multi.flatten()] == [
        *Hashed(20).encode(["never seen"])
    ]


def test_new_rows_are_coded_by_what_train_fitted(tmp_path):
    of = (
        Feature(column="tags", kind="multi"),
        Feature(column="kind", kind="categorical"),
        Feature(column="price", kind="numeric", normaliser="rank"),
    )
    items(tmp_path, *of, tags=["x|y", "y", None], kind=["k", "l", None], price=[1.0, 3.0, None])
    new = pd.DataFrame(
        {"tags": ["new|y", "x"], "kind": ["l", "new"], "price": [2.0, None]}, index=[5, 5]
    )
    coded = encode_table(FeatureColumns(item=of), "item", new, tmp_path)
    assert coded.multi[:, 0].tolist() == [[0, 2], [1, 0]]
    assert coded.categorical[:, 0].tolist() == [2, 0]
    assert coded.numeric[:, 0].tolist() == [0, 0]


def test_a_table_goes_on_with_rows_of_the_same_width(tmp_path):
    of = (
        Feature(column="tags", kind="multi"),
        Feature(column="price", kind="numeric", normaliser="none"),
    )
    table, _ = items(tmp_path, *of, tags=["x|y", "y", None], price=[1.0, 3.0, None])
    now = pd.DataFrame(
        {"item_id": ["e", "a", "d"], "tags": ["x", "x", "y|new|x|y"], "price": [5.0, 1.0, None]}
    )
    longer = extend_table(
        table, FeatureColumns(item=of), "item", now, Ids(pd.Index(["d", "e", "f"])), tmp_path
    )
    assert longer.multi[: len(table.multi)].equal(table.multi)
    assert longer.multi[len(table.multi) :, 0].tolist() == [
        [2, 0],
        [1, 0],
        [0, 0],
    ]  # the first two of four; f is in no table
    assert longer.numeric[len(table.numeric) :, 0].tolist() == [0, 5, 0]
    assert (
        extend_table(table, FeatureColumns(item=of), "item", now, Ids(pd.Index([])), tmp_path)
        is table
    )


def test_users_share_the_vocabulary_and_width_of_an_item_column(tmp_path):
    section = Feature(column="section", kind="categorical", dim=5)
    likes = (
        Feature(column="likes", kind="multi", shares="section"),
        Feature(column="saved", kind="multi", shares="item_id"),
    )
    settings = features(item=(section,), user=likes, id_dim=7)
    ITEMS.save(tmp_path / "item_ids.parquet", "item_id")
    fit_table(
        settings,
        "item",
        pd.DataFrame({"item_id": ["a", "b", "c"], "section": ["1", "2", None]}),
        ITEMS,
        tmp_path,
    )
    rows = pd.DataFrame({"user_id": ["u1", "u2"], "likes": ["9|2", "1"], "saved": ["c|zz|b", None]})
    table, side = fit_table(settings, "user", rows, USERS, tmp_path)
    assert table.multi[1].tolist() == [[0, 2, 0], [3, 0, 2]]  # 9 is no item's section, zz no item
    assert side.multi == (
        Column(column="likes", size=3, dim=5, values=2, shares="section"),
        Column(column="saved", size=4, dim=7, values=3, shares="item_id"),
    )


def test_a_shared_vocabulary_finds_numbers_in_text(tmp_path):
    Ids.fit(pd.Series([10, 20])).save(tmp_path / "item_ids.parquet", "item_id")
    saved = FeatureColumns(user=(Feature(column="saved", kind="multi", shares="item_id"),))
    assert encode_table(
        saved, "user", pd.DataFrame({"saved": ["20|7|10"]}), tmp_path
    ).multi.tolist() == [[[2, 0, 1]]]
    assert encode_table(
        saved, "user", pd.DataFrame({"saved": [[20, 10]]}), tmp_path
    ).multi.tolist() == [[[2, 1]]]


def test_features_without_their_table_or_columns_are_named(tmp_path):
    of = features(
        item=(Feature(column="price", kind="numeric"), Feature(column="knd", kind="categorical"))
    )
    with pytest.raises(
        ConfigError,
        match=r"features\.columns\.item names columns, but the source has no items table",
    ):
        fit_table(of, "item", None, ITEMS, tmp_path)
    with pytest.raises(
        DataError,
        match=r"(?s)the items table has no column 'price'.*no column 'knd'.*did you mean 'kind'",
    ):
        fit_table(of, "item", pd.DataFrame({"item_id": ["a"], "kind": ["k"]}), ITEMS, tmp_path)


def test_context_that_is_missing_is_unknown(tmp_path):
    device, browser = (
        Feature(column="device", kind="categorical"),
        Feature(column="browser", kind="categorical", buckets=9),
    )
    settings = features(context=(device, browser))
    codes, columns = fit_context(
        settings, pd.DataFrame({"device": ["web", "app"], "browser": ["x", None]}), tmp_path
    )
    x = Hashed(9).encode(["x"])[0]
    assert [column.tolist() for column in codes] == [[2, 1], [x, 0]]
    assert [column.size for column in columns] == [3, 10]
    new = pd.DataFrame({"device": ["web", "tv", None]})
    assert encode_context(settings.columns, new, tmp_path).tolist() == [[2, 0], [0, 0], [0, 0]]
    assert encode_context(FeatureColumns(), new, tmp_path).shape == (3, 0)


def test_tables_that_would_not_fit_are_named_at_once():
    big = Column(column="url", size=300_000_000, dim=8)
    schema = Schema(
        users=2,
        items=100_000_000,
        user=TowerColumns(categorical=(big,), multi=(), numeric=1),
        item=TowerColumns(categorical=(), multi=(), numeric=0),
    )
    with pytest.raises(
        ConfigError,
        match=r"(?s)'item_id' needs .*100,000,000 x 32 = 11\.9 GiB"
        r".*'url' needs .* = 8\.94 GiB.*`buckets`",
    ):
        check_embedding_sizes(schema, Features())
    check_embedding_sizes(schema, Features(max_embedding_gib=12))
    blind = {
        "item_ids": False,
        "history": {"length": 0},
        "columns": {"item": [{"column": "kind", "kind": "categorical"}]},
    }
    check_embedding_sizes(
        schema, Features.model_validate({"max_embedding_gib": 10, **blind})
    )  # item ids take no table then


def test_the_unknown_row_is_all_zero(tmp_path):
    of = (Feature(column="tags", kind="multi", buckets=5), Feature(column="price", kind="numeric"))
    table, _ = items(tmp_path, *of, tags=["x", "y", "z"], price=[1, 2, 3])
    assert not any(part[0].any() for part in (table.categorical, table.multi, table.numeric))
    assert [part.dtype for part in (table.categorical, table.multi, table.numeric)] == [
        torch.int64,
        torch.int64,
        torch.float32,
    ]


@pytest.mark.parametrize("rows_at_once", [1, 2, 50])
def test_a_table_in_parts_is_coded_as_one_frame(tmp_path, rows_at_once):
    kinds = {"kind": "categorical", "year": "categorical", "tags": "multi", "words": "text"}
    of = [Feature(column=column, kind=kind) for column, kind in kinds.items()]
    settings = features(item=(*of, Feature(column="price", kind="numeric", normaliser="rank")))
    ids = Ids.fit(pd.Series([f"i{number}" for number in range(7)]))
    rows = pd.DataFrame(
        {
            "item_id": [f"i{number}" for number in (5, 2, 0, 3, 6)],
            "kind": ["b", None, "a", "b", "é"],
            "year": [2001, 2002, 1999, 2001, 2003],
            "tags": ["x", "y|x|z", None, "z", ""],
            "words": ["one two", "two", None, "", "three"],
            "price": [1.5, None, 3.0, 3.0, -2.0],
        }
    )
    ordered = rows.set_index("item_id").reindex(ids.index).reset_index(drop=True)
    ordered.astype({"year": "Int64"}).to_parquet(tmp_path / "ordered.parquet")
    found = []
    for name, table in (
        ("frame", rows),
        ("parts", OrderedRows(tmp_path / "ordered.parquet", rows_at_once)),
    ):
        folder = tmp_path / name
        folder.mkdir()
        coded, columns = fit_table(settings, "item", table, ids, folder)
        files = {file.name: file.read_bytes() for file in folder.iterdir()}
        found.append(({key: part.tolist() for key, part in as_named("x", coded).items()}, columns))
        found.append(files)
    assert found[:2] == found[2:]
