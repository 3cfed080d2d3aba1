"""Each setting of an index has an effect."""

import faiss
import numpy as np
import pytest
from pydantic import ValidationError

from dssm_core.errors import ConfigError
from dssm_core.indexes import annoy
from dssm_core.indexes.annoy import Annoy
from dssm_core.indexes.faiss_hnsw import FaissHnsw
from dssm_core.indexes.faiss_ivf import FaissIvf


@pytest.fixture(scope="module")
def vectors():
    rows = np.random.default_rng(0).normal(size=(3000, 24)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def recall(member, vectors, index=None):
    queries = vectors[:40]
    rows, _ = member.search(index if index is not None else member.build(vectors, 0), queries, 20)
    wanted = np.argsort(-(queries @ vectors.T), axis=1)[:, :20]
    return np.mean([len(np.intersect1d(a, b)) / 20 for a, b in zip(rows, wanted, strict=True)])


def test_ivf_has_fewer_cells_for_few_items(vectors):
    assert FaissIvf(nlist=256).build(vectors, 0).nlist == 3000 // 39
    assert FaissIvf(nlist=10).build(vectors, 0).nlist == 10
    assert FaissIvf(nlist=256).build(vectors[:20], 0).nlist == 1


def test_ivf_nprobe_buys_recall(vectors):
    index = FaissIvf(nlist=64).build(vectors, 0)
    low, high, all_cells = (recall(FaissIvf(nlist=64, nprobe=n), vectors, index) for n in (1, 8, 64))
    assert low < high < all_cells == 1.0


def test_ivf_short_lists_are_padded_with_minus_infinity(vectors):
    rows, scores = FaissIvf(nprobe=1).search(FaissIvf().build(vectors, 0), vectors[:3], 2000)
    assert (rows[:, -1] == -1).all()
    assert np.isneginf(scores[rows < 0]).all()
    assert np.isfinite(scores[rows >= 0]).all()


def test_ivf_seed_starts_the_k_means(vectors):
    indexes = [FaissIvf(nlist=8).build(vectors, seed) for seed in (1, 2)]
    assert not np.allclose(*[index.quantizer.reconstruct_n(0, 8) for index in indexes])


def test_hnsw_settings_buy_recall(vectors):
    index = FaissHnsw(m=4, ef_construction=20).build(vectors, 0)
    assert recall(FaissHnsw(ef_search=20), vectors, index) < recall(FaissHnsw(ef_search=500), vectors, index)
    assert recall(FaissHnsw(m=2, ef_search=20), vectors) < recall(FaissHnsw(m=32, ef_search=20), vectors)
    assert recall(FaissHnsw(m=4, ef_construction=1, ef_search=20), vectors) < recall(FaissHnsw(m=4, ef_search=20), vectors)


def test_hnsw_seed_draws_the_levels(vectors):
    levels = [faiss.vector_to_array(FaissHnsw().build(vectors[:500], seed).hnsw.levels) for seed in (1, 2)]
    assert not np.array_equal(*levels)


def test_annoy_settings_buy_recall(vectors):
    index = Annoy(trees=20).build(vectors, 0)
    assert recall(Annoy(search_k=50), vectors, index) < recall(Annoy(search_k=50_000), vectors, index)
    assert recall(Annoy(trees=1, search_k=500), vectors) < recall(Annoy(trees=50, search_k=500), vectors)


def test_annoy_missing_names_the_extra(monkeypatch, vectors):
    monkeypatch.setitem(__import__("sys").modules, "annoy", None)
    with pytest.raises(ConfigError, match=r"dssm\[annoy\]"):
        annoy.Annoy().build(vectors, 0)


@pytest.mark.parametrize("wrong", [{"nlist": 0}, {"nprobe": 0}, {"trees": 3}])
def test_wrong_settings_are_refused(wrong):
    with pytest.raises(ValidationError):
        FaissIvf(**wrong)
