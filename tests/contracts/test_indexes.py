"""Every index of the family keeps the Protocol."""

import json

import numpy as np
import pytest

from dssm_core import families
from dssm_core.config import Member
from dssm_core.errors import ArtifactError, DataError
from dssm_core.families import INDEXES


@pytest.fixture(params=sorted(INDEXES))
def member(request):
    return families.build(INDEXES, Member(kind=request.param))


def unit_vectors(n, dim=16, seed=0):
    vectors = np.random.default_rng(seed).normal(size=(n, dim)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def brute_force(vectors, queries, k):
    scores = queries @ vectors.T
    rows = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    return rows, np.take_along_axis(scores, rows, 1)


def test_finds_what_brute_force_finds(member):
    vectors, queries = unit_vectors(2000), unit_vectors(30, seed=1)
    rows, scores = member.search(member.build(vectors, seed=3), queries, 50)
    wanted, _ = brute_force(vectors, queries, 50)
    found = np.mean([len(np.intersect1d(a, b)) / 50 for a, b in zip(rows, wanted, strict=True)])
    assert found >= 0.97
    assert rows.dtype == np.int64
    assert scores.dtype == np.float32
    np.testing.assert_allclose(scores, np.einsum("bd,bkd->bk", queries, vectors[rows]), atol=1e-4)
    assert (np.diff(scores, axis=1) <= 1e-6).all()


def test_no_row_twice(member):
    rows, _ = member.search(member.build(unit_vectors(500), seed=0), unit_vectors(20, seed=1), 100)
    for row in rows:
        assert len(np.unique(row[row >= 0])) == (row >= 0).sum()


def test_more_than_there_are_is_padded(member):
    vectors = unit_vectors(5)
    rows, scores = member.search(member.build(vectors, seed=0), vectors[:2], 8)
    assert rows.shape == scores.shape == (2, 8)
    assert (np.sort(rows[:, :5], axis=1) == np.arange(5)).all()
    assert (rows[:, 5:] == -1).all()
    assert np.isneginf(scores[:, 5:]).all()


def test_one_item(member):
    rows, scores = member.search(member.build(unit_vectors(1), seed=0), unit_vectors(1), 1)
    assert rows.tolist() == [[0]]
    np.testing.assert_allclose(scores, [[1.0]], atol=1e-5)


@pytest.mark.parametrize("share", [0.01, 0.3, 0.99])
def test_only_allowed_rows_are_returned_best_first(member, share):
    vectors, queries = unit_vectors(2000), unit_vectors(20, seed=1)
    allowed = np.random.default_rng(2).random(2000) < share
    rows, scores = member.search(member.build(vectors, seed=0), queries, 10, allowed)
    assert rows.shape == scores.shape == (20, 10)
    assert allowed[rows[rows >= 0]].all()
    assert (scores[:, 1:] <= scores[:, :-1]).all()
    if member.exact:
        best = np.argsort(-np.where(allowed, queries @ vectors.T, -np.inf), axis=1)[:, :10]
        np.testing.assert_array_equal(rows, best)


def test_where_nothing_is_allowed_nothing_is_returned(member):
    index = member.build(unit_vectors(50), seed=0)
    rows, scores = member.search(index, unit_vectors(2), 3, np.zeros(50, dtype=np.bool_))
    assert (rows == -1).all()
    assert np.isneginf(scores).all()


def test_saved_and_loaded_answers_the_same(member, tmp_path):
    index = member.build(unit_vectors(300), seed=0)
    before = member.search(index, unit_vectors(7, seed=2), 20)
    member.save(index, tmp_path)
    after = member.search(member.load(tmp_path), unit_vectors(7, seed=2), 20)
    np.testing.assert_array_equal(before[0], after[0])
    np.testing.assert_array_equal(before[1], after[1])


def test_what_it_says_of_itself_is_plain_json(member):
    told = member.describe(member.build(unit_vectors(300), seed=0, queries=unit_vectors(5, seed=1)))
    assert json.loads(json.dumps(told)) == told


def test_same_seed_same_index(member):
    vectors, queries = unit_vectors(3000), unit_vectors(20, seed=1)
    answers = [member.search(member.build(vectors, seed=5), queries, 30)[0] for _ in range(2)]
    np.testing.assert_array_equal(*answers)


@pytest.mark.parametrize(
    "vectors",
    [np.zeros((0, 4), np.float32), np.zeros(4, np.float32), np.full((3, 4), np.nan, np.float32)],
)
def test_bad_vectors_are_refused(member, vectors):
    with pytest.raises(DataError, match="vectors"):
        member.build(vectors, seed=0)


def test_bad_k_is_refused(member):
    with pytest.raises(ValueError, match="k is 0"):
        member.search(member.build(unit_vectors(5), seed=0), unit_vectors(1), 0)


def test_nothing_to_load_is_an_artifact_error(member, tmp_path):
    with pytest.raises(ArtifactError, match="build_index"):
        member.load(tmp_path)


def test_damaged_file_is_an_artifact_error(member, tmp_path):
    member.save(member.build(unit_vectors(300), seed=0), tmp_path)
    for file in tmp_path.iterdir():
        file.write_bytes(file.read_bytes()[:10])
    with pytest.raises(ArtifactError):
        member.load(tmp_path)


def test_settings_are_frozen_and_complete(member):
    assert member.model_config["frozen"]
    with pytest.raises(ValueError, match="extra"):
        type(member)(no_such_setting=1)
