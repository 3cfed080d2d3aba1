"""Ids that are whole numbers in the log are read as text. Whatever type asks for them, answers hold
integers, of Python where JSON is written.
"""

from __future__ import annotations

import json
from decimal import Decimal
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from dssm_core.operation.lookalike import audience, like_seeds, near_item
from dssm_core.operation.publish import publish
from dssm_core.operation.recommend import UserLists, recommend
from dssm_core.registry.retriever import Retriever
from dssm_core.retrieval.bundle import assemble, open_bundle
from dssm_core.retrieval.new_users import KNOWN

ASKED = [3, "3", "3.0", 3.0, np.int32(3), np.int64(3), np.float32(3), np.str_("3"), Decimal("3.0")]


def as_text(folder):
    """The same bundle with its ids as a real log's: text in the order of text."""
    for name in ("user", "item"):
        file = folder / f"{name}_ids.parquet"
        texts = pd.read_parquet(file).astype(str)
        file.unlink()  # it may be a hard link to that of the run
        texts.to_parquet(file)
    return folder


@pytest.fixture
def folder(fabricate, tmp_path):
    return as_text(assemble(fabricate(), tmp_path / "bundle"))


@pytest.fixture
def bundle(folder):
    return open_bundle(folder)


@pytest.mark.parametrize("asked", ASKED, ids=lambda value: f"{type(value).__name__} {value}")
def test_a_request_of_any_type_is_answered_by_integers(bundle, asked):
    frame = pd.DataFrame({"user_id": pd.Series([asked], dtype=object)})
    answer = bundle.retrieve(frame, 2)
    assert answer["source"].tolist() == [KNOWN]
    assert answer["item_ids"][0][0] == 30
    assert {type(item) for item in answer["item_ids"][0]} == {int}
    assert json.loads(json.dumps(answer["item_ids"].tolist())) == answer["item_ids"].tolist()
    excluded = bundle.retrieve(frame.assign(exclude=[[asked, "30", 20.0]]), 4)
    assert sorted(excluded["item_ids"][0]) == [10, 40]


def test_the_served_model_answers_by_integers(folder):
    retriever = Retriever()
    retriever.load_context(SimpleNamespace(artifacts={"bundle": str(folder)}))
    answer = retriever.predict(None, pd.DataFrame({"user_id": np.array([1, 3])}), {"k": 1})
    assert answer["item_ids"].tolist() == [[10], [30]]
    assert [type(items[0]) for items in answer["item_ids"]] == [int, int]


def test_files_hold_integers(bundle, tmp_path):
    lists = UserLists(bundle, bundle.rules(None), 1)
    recommend(lists, tmp_path / "lists.parquet")
    publish(bundle, "dssm-made", "1", str(tmp_path / "out"), lists)
    published = tmp_path / "out" / "dssm-made" / "1"
    for file in (tmp_path / "lists.parquet", published / "lists.parquet"):
        table = pq.read_table(file)
        assert table["user_id"].to_pylist() == [1, 2, 3]
        assert table["item_ids"].to_pylist() == [[10], [20], [30]]
    assert pq.read_table(published / "item_id.parquet")["id"].to_pylist() == [10, 20, 30, 40]
    (part,) = lists.parts()
    assert lists.values(part) == [b"[10]", b"[20]", b"[30]"]


@pytest.mark.parametrize("seed", ASKED, ids=lambda value: f"{type(value).__name__} {value}")
def test_audiences_are_integers(bundle, seed):
    for query in (like_seeds(bundle, [seed]), near_item(bundle, Decimal(10) * int(float(seed)))):
        users = audience(bundle, query, 3, exclude_seeds=False)
        assert users["user_id"].dtype == np.int64
        assert users["user_id"][0] == 3


@pytest.mark.parametrize("odd", ["007", "x", "1.5", str(2**63)])
def test_one_id_that_is_no_whole_number_keeps_all_as_text(fabricate, tmp_path, odd):
    folder = as_text(assemble(fabricate(), tmp_path / "bundle"))
    ids = pd.DataFrame({"item_id": ["10", "20", "30", odd]})
    ids.to_parquet(folder / "item_ids.parquet")
    answer = open_bundle(folder).retrieve(pd.DataFrame({"user_id": [3], "exclude": [[odd]]}), 4)
    assert sorted(answer["item_ids"][0]) == ["10", "20", "30"]
