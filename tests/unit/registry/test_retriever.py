"""The bundle without MLflow: who asks how, and what bad input gets."""

from decimal import Decimal

import numpy as np
import pandas as pd
import pytest

from dssm_core.errors import ArtifactError, DataError
from dssm_core.retrieval.bundle import Bundle, assemble, content_hash, open_bundle


@pytest.fixture
def bundle(fabricate, tmp_path):
    return open_bundle(assemble(fabricate(), tmp_path / "bundle"))


class Plane:
    """Stands for the user tower: a user points at the newest item of the history (10, 20, 30, 40
    are the axes).
    """

    def embed(self, codes, histories, rows):
        angle = histories.items[histories.ptr[1:] - 1] * np.pi / 2
        return np.stack([np.cos(angle), np.sin(angle)], axis=1).astype(np.float32)


@pytest.fixture
def told(bundle, monkeypatch):
    monkeypatch.setitem(bundle.__dict__, "encoder", Plane())
    return bundle


def first(answer):
    return [items[0] for items in answer.item_ids]


def test_known_users_ask_with_their_exported_vector(bundle):
    answer = bundle.retrieve(pd.DataFrame({"user_id": [3, 1]}), 1)
    assert answer.item_ids.tolist() == [[30], [10]]
    assert answer.scores.tolist() == [[1.0], [1.0]]


def test_unknown_users_ask_as_the_unknown(bundle):
    assert first(bundle.retrieve(pd.DataFrame({"user_id": [99, None]}), 1)) == [40, 40]


def test_a_history_wins_over_the_exported_vector(told):
    frame = pd.DataFrame({"user_id": [1, 1, 99, 1], "history": [[10, 20], [], [30], None]})
    assert first(told.retrieve(frame, 1)) == [20, 10, 30, 10]


def test_a_history_alone_is_enough(told):
    assert first(told.retrieve(pd.DataFrame({"history": [[40], np.array([20])]}), 1)) == [40, 20]


@pytest.mark.parametrize("asked", [3.0, "3", "3.000", Decimal("3.0"), np.float32(3)])
def test_an_answer_does_not_depend_on_the_other_rows(bundle, asked):
    """A null beside numbers makes them floats, and others make them objects."""
    for others in ([], [None], [np.nan, 99], ["nobody", 1]):
        answer = bundle.retrieve(pd.DataFrame({"user_id": [asked, *others]}), 1)
        assert answer.item_ids[0] == [30]
        assert answer.source.tolist()[1:2] in ([], ["context"])


def test_ids_of_another_type_are_found(told):
    assert first(told.retrieve(pd.DataFrame({"user_id": ["3"]}), 1)) == [30]
    assert first(told.retrieve(pd.DataFrame({"history": [["20"]]}), 1)) == [20]


def test_k_over_the_catalogue_gives_all(bundle):
    answer = bundle.retrieve(pd.DataFrame({"user_id": [1]}), 200)
    assert sorted(answer.item_ids[0]) == [10, 20, 30, 40]
    assert answer.scores[0] == sorted(answer.scores[0], reverse=True)


@pytest.mark.parametrize("k", [0, -1, 1.5, "3", True, None, 10_001])
def test_bad_k_is_named(bundle, k):
    with pytest.raises(
        DataError, match=f"k is {k!r}, but it must be a whole number from 1 to 10,000"
    ):
        bundle.retrieve(pd.DataFrame({"user_id": [1]}), k)


def test_nobody_asking_is_named(bundle):
    with pytest.raises(DataError, match="the input has no rows: give one row for each user"):
        bundle.retrieve(pd.DataFrame({"user_id": []}), 5)


def test_each_answer_says_where_it_comes_from(told):
    frame = pd.DataFrame(
        {"user_id": [1, 1, 99, 99], "history": [[10], [77], [77, 20], [77]]}
    )  # no train row holds item 77
    answer = told.retrieve(frame, 1)
    assert answer.source.tolist() == ["history", "user", "history", "context"]
    assert first(answer) == [10, 10, 20, 40]
    assert told.hot is None


def test_newcomers_of_a_model_with_a_list_get_the_list(fabricate, finish, tmp_path):
    run = fabricate()
    pd.DataFrame({"row": [2, 1], "score": [0.75, 0.25]}).to_parquet(
        run.step("export_embeddings") / "hot.parquet"
    )
    finish(run, "export_embeddings")
    bundle = open_bundle(assemble(run, tmp_path / "hot"))
    answer = bundle.retrieve(pd.DataFrame({"user_id": [99, 1, None]}), 3)
    assert [items[:2] for items in answer.item_ids[[0, 2]]] == [[30, 20], [30, 20]]
    assert answer.scores.tolist()[0] == [0.75, 0.25, 0]
    assert answer.source.tolist() == ["hot", "user", "hot"]
    assert answer.item_ids[1][0] == 10


def test_missing_columns_are_named(bundle):
    with pytest.raises(DataError, match=r"columns \['x'\]: give 'user_id', 'history'"):
        bundle.retrieve(pd.DataFrame({"x": [1]}), 5)


@pytest.mark.parametrize("cell", [[1], np.array([1]), {"a": 1}])
def test_an_id_that_is_no_scalar_is_refused(bundle, cell):
    """As MLflow's server makes of the form `inputs`: without this it would be somebody unknown, and
    answered as such.
    """
    with pytest.raises(
        DataError, match=r"user_id in row 1 is .* not a single id: give one id in each row"
    ):
        bundle.retrieve(pd.DataFrame({"user_id": [1, cell]}), 5)


@pytest.mark.parametrize(
    ("cell", "kind"), [("10,20", "text"), (10, "of type int"), ({"a": 1}, "of type dict")]
)
def test_a_history_that_is_no_list_is_refused(bundle, cell, kind):
    with pytest.raises(DataError, match=f"history in row 1, .* is {kind}: give a list of item_id"):
        bundle.retrieve(pd.DataFrame({"history": [[10], cell]}), 5)


def test_a_missing_file_is_named(bundle):
    (bundle.folder / "item_ids.parquet").unlink()
    with pytest.raises(ArtifactError, match=r"item_ids\.parquet"):
        open_bundle(bundle.folder)


def test_vectors_of_other_users_are_refused(bundle):
    (bundle.folder / "user_embeddings.npy").unlink()
    np.save(bundle.folder / "user_embeddings.npy", np.zeros((9, 2), np.float32))
    with pytest.raises(ArtifactError, match="9 user vectors for 4 codes"):
        open_bundle(bundle.folder)


def test_the_hash_follows_names_and_content(tmp_path):
    (tmp_path / "a").write_text("1")
    before = content_hash(tmp_path)
    (tmp_path / "a").write_text("2")
    other = content_hash(tmp_path)
    (tmp_path / "a").rename(tmp_path / "b")
    assert len({before, other, content_hash(tmp_path)}) == 3


def test_bundle_is_frozen():
    assert Bundle.__dataclass_params__.frozen


def test_only_requests_are_limited_in_size(bundle, monkeypatch):
    """The gate asks with the whole histories of thousands of users at once."""
    monkeypatch.setattr("dssm_core.retrieval.requests.MAX_IDS", 3)
    frame = pd.DataFrame({"history": [[10, 20], [30, 40]]})
    assert bundle.read(frame).histories.items.tolist() == [0, 1, 2, 3]
    with pytest.raises(DataError, match="has 4 item ids, and a request may have 3"):
        bundle.retrieve(frame, 1)
