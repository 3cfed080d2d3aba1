"""Each setting of an index has an effect; `auto` chooses by what is measured."""

import itertools
import json
import logging

import faiss
import numpy as np
import pytest
from pydantic import ValidationError

from dssm_core import families
from dssm_core.config import parse_config
from dssm_core.errors import ConfigError
from dssm_core.families import INDEXES
from dssm_core.retrieval.index import build_index
from dssm_core.retrieval.indexes import annoy, measure, protocol
from dssm_core.retrieval.indexes.annoy import Annoy
from dssm_core.retrieval.indexes.auto import Auto, IndexTrial, least_effort, plans
from dssm_core.retrieval.indexes.faiss_flat import FaissFlat
from dssm_core.retrieval.indexes.faiss_hnsw import FaissHnsw
from dssm_core.retrieval.indexes.faiss_ivf import FaissIvf
from dssm_core.runs.run import create_run


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
    low, high, all_cells = (
        recall(FaissIvf(nlist=64, nprobe=n), vectors, index) for n in (1, 8, 64)
    )
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
    assert recall(FaissHnsw(ef_search=20), vectors, index) < recall(
        FaissHnsw(ef_search=500), vectors, index
    )
    assert recall(FaissHnsw(m=2, ef_search=20), vectors) < recall(
        FaissHnsw(m=32, ef_search=20), vectors
    )
    assert recall(FaissHnsw(m=4, ef_construction=1, ef_search=20), vectors) < recall(
        FaissHnsw(m=4, ef_search=20), vectors
    )


def test_hnsw_seed_draws_the_levels(vectors):
    levels = [
        faiss.vector_to_array(FaissHnsw().build(vectors[:500], seed).hnsw.levels) for seed in (1, 2)
    ]
    assert not np.array_equal(*levels)


def test_annoy_settings_buy_recall(vectors):
    index = Annoy(trees=20).build(vectors, 0)
    assert recall(Annoy(search_k=50), vectors, index) < recall(
        Annoy(search_k=50_000), vectors, index
    )
    assert recall(Annoy(trees=1, search_k=500), vectors) < recall(
        Annoy(trees=50, search_k=500), vectors
    )


def test_annoy_missing_names_the_extra(monkeypatch, vectors):
    monkeypatch.setitem(__import__("sys").modules, "annoy", None)
    with pytest.raises(ConfigError, match=r"dssm\[annoy\]"):
        annoy.Annoy().build(vectors, 0)


@pytest.mark.parametrize("wrong", [{"nlist": 0}, {"nprobe": 0}, {"trees": 3}])
def test_wrong_settings_are_refused(wrong):
    with pytest.raises(ValidationError):
        FaissIvf(**wrong)


def test_ivf_samples_some_vectors_of_each_cell(vectors, monkeypatch):
    indexes = [FaissIvf(nlist=40).build(vectors, 0)]
    monkeypatch.setattr("dssm_core.retrieval.indexes.faiss_ivf.SAMPLED_PER_CELL", 40)
    indexes.append(FaissIvf(nlist=40).build(vectors, 0))
    assert not np.allclose(*[index.quantizer.reconstruct_n(0, 40) for index in indexes])


def test_a_long_build_says_how_far_it_is(vectors, monkeypatch, caplog):
    monkeypatch.setattr(protocol, "SLOW", 1000)
    monkeypatch.setattr(protocol, "PART", 700)
    caplog.set_level(logging.INFO, "dssm_core")
    FaissHnsw().build(vectors, 0)
    assert [message.split(": ")[1] for message in caplog.messages] == [
        f"{n:,} of 3,000 vectors" for n in (700, 1400, 2100, 2800, 3000)
    ]
    caplog.clear()
    FaissIvf(nlist=10).build(vectors, 0)
    assert caplog.messages == [
        "clustering into 10 cells: 3,000 vectors",
        "sorting into 10 cells: 3,000 vectors",
    ]


# auto: recalls are real, speeds are planted


@pytest.fixture
def speeds(monkeypatch):
    """Queries a second by class name; inverted lists get slower with every cell that they visit."""
    speeds = {"FaissFlat": 100.0, "FaissIvf": 4000.0, "FaissHnsw": 50.0, "Annoy": 10.0}

    def planted(self, member, index):
        rows, _ = member.search(index, self.queries, self.k)
        return self.recall(rows), speeds.get(type(member).__name__, 1.0) / getattr(
            member, "nprobe", 1
        )

    monkeypatch.setattr(measure.Sample, "measure", planted)
    return speeds


SMALL = {
    "flat_below": 0,
    "k": 20,
    "sample": 100,
    "min_recall": 0.9,
    "kinds": ("faiss_ivf", "faiss_hnsw"),
}


def test_auto_takes_the_least_effort_that_reaches_the_recall(vectors, speeds):
    chosen = Auto(**SMALL | {"kinds": ("faiss_ivf",)}).build(vectors, 0, vectors)
    assert chosen.choice.kind == "faiss_ivf"
    nlist, nprobe = chosen.choice.settings["nlist"], chosen.choice.settings["nprobe"]
    asked = measure.sample(vectors, vectors, 20, 100, 0)
    index = FaissIvf(nlist=nlist).build(vectors, 0)
    reached = [
        asked.measure(FaissIvf(nlist=nlist, nprobe=n), index)[0] for n in range(1, nprobe + 1)
    ]
    assert reached[-1] >= 0.9
    assert all(recall < 0.9 for recall in reached[: nprobe - 1 - max(1, nprobe // 8)])
    found = [trial for trial in chosen.trials if trial.recall >= 0.9]
    assert max(found, key=lambda trial: trial.queries_per_s).settings == chosen.choice.settings
    rows, _ = Auto().search(chosen, asked.queries, 20)
    assert asked.recall(rows) == reached[-1]


def test_auto_takes_the_fastest_kind(vectors, speeds):
    auto = Auto(**SMALL)
    assert auto.build(vectors, 0, vectors).choice.kind == "faiss_ivf"
    speeds["FaissHnsw"] = 5000.0
    assert auto.build(vectors, 0, vectors).choice.kind == "faiss_hnsw"
    assert (
        Auto(**SMALL | {"kinds": ("faiss_ivf",)}).build(vectors, 0, vectors).choice.kind
        == "faiss_ivf"
    )
    speeds["FaissFlat"] = 9000.0
    assert auto.build(vectors, 0, vectors).choice.kind == "faiss_flat"


def test_auto_settings_have_effects(vectors, speeds):
    def nprobe(**settings):
        return (
            Auto(**SMALL | {"kinds": ("faiss_ivf",)} | settings)
            .build(vectors, 0, vectors)
            .choice.settings["nprobe"]
        )

    assert nprobe(min_recall=0.5) < nprobe(min_recall=0.9)
    assert nprobe(k=1) < nprobe(k=20)  # each asks for itself, and itself is in the nearest cell
    one, many = (
        Auto(**SMALL | {"sample": n}).build(vectors, 0, vectors).trials[-1] for n in (1, 100)
    )
    assert one.recall in [n / 20 for n in range(21)]
    assert many.recall not in [n / 20 for n in range(21)]
    assert Auto(**SMALL | {"flat_below": len(vectors)}).build(vectors, 0, vectors).trials == ()
    assert (
        len(Auto(**SMALL | {"flat_below": len(vectors) - 1}).build(vectors, 0, vectors).trials) > 3
    )


def test_auto_listens_to_those_who_will_ask(vectors, speeds):
    alone = (vectors + 5 * vectors[:1]) / np.linalg.norm(
        vectors + 5 * vectors[:1], axis=1, keepdims=True
    )  # all in one corner
    settings = SMALL | {"kinds": ("faiss_ivf",)}
    corner, everywhere = (
        Auto(**settings).build(vectors, 0, asking).trials for asking in (alone, vectors)
    )
    assert [trial.recall for trial in corner[1:3]] != [trial.recall for trial in everywhere[1:3]]
    assert (
        Auto(**settings).build(vectors, 0).trials == everywhere
    )  # nobody known: the items themselves ask


def test_auto_saves_the_choice_and_no_times(vectors, speeds, tmp_path):
    auto = Auto(**SMALL | {"kinds": ("faiss_ivf",)})
    chosen = auto.build(vectors, 0, vectors)
    for name, speed in (("a", 4000.0), ("b", 3900.0)):
        speeds["FaissIvf"] = speed
        (tmp_path / name).mkdir()
        auto.save(auto.build(vectors, 0, vectors), tmp_path / name)
    for file in ("auto.json", "index.faiss"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()
    assert json.loads((tmp_path / "a" / "auto.json").read_bytes()) == chosen.choice.model_dump()
    loaded = Auto().load(tmp_path / "a")  # searched as tuned, whatever the settings are now
    assert loaded.member == chosen.member
    np.testing.assert_array_equal(
        auto.search(loaded, vectors[:50], 20)[0], auto.search(chosen, vectors[:50], 20)[0]
    )
    told = json.loads(json.dumps(auto.describe(chosen)))
    assert told["chosen"] == chosen.choice.model_dump()
    assert [trial["kind"] for trial in told["tried"]][:2] == ["faiss_flat", "faiss_ivf"]
    assert set(told["tried"][1]) == {"kind", "settings", "recall", "queries_per_s"}


def test_auto_plans_sizes_by_the_catalogue():
    one_million = list(plans(("faiss_ivf", "faiss_hnsw", "annoy"), 1_000_000))
    assert [choice.settings.get("nlist") for choice in one_million] == [1024, 4096, None, None]
    members = [families.build(INDEXES, choice) for choice in one_million]
    assert [(member.effort, member.least_effort(200)) for member in members] == [
        ("nprobe", 1),
        ("nprobe", 1),
        ("ef_search", 200),
        ("search_k", 200),
    ]


def test_least_effort_doubles_then_halves():
    asked = []

    def trial(value):
        asked.append(value)
        return IndexTrial("made", {"effort": value}, min(1.0, value / 37), 1000.0 / value)

    assert least_effort(trial, 1.0, 1.0, least=1, most=1000).settings == {"effort": 40}
    assert asked[:9] == [1, 2, 4, 8, 16, 32, 64, 48, 40]
    assert (
        least_effort(trial, 1.0, 20.0, least=1, most=1000) is not None
    )  # 32 is faster than 20, and not enough: on
    assert (
        least_effort(trial, 1.0, 40.0, least=1, most=1000) is None
    )  # 32 is slower than 40 and not enough
    assert least_effort(trial, 1.0, 1.0, least=1, most=32) is None
    assert least_effort(trial, 1.0, 1.0, least=200, most=1000).settings == {"effort": 200}


def test_recall_by_hand():
    vectors = np.array([[1, 0], [0.8, 0.6], [0.8, 0.6], [0, 1], [-1, 0]], dtype=np.float32)
    asked = measure.sample(
        vectors, vectors[:1], k=2, count=10, seed=0
    )  # the second place is a tie of rows 1 and 2
    found = {(0, 1): 1.0, (0, 2): 1.0, (1, 2): 1.0, (0, 3): 0.5, (3, 4): 0.0, (0, -1): 0.5}
    for rows, recall in found.items():
        assert asked.recall(np.array([rows])) == recall
    assert measure.sample(vectors, vectors[:1], k=200, count=10, seed=0).k == 5
    assert len(measure.sample(vectors, vectors, k=1, count=3, seed=0).queries) == 3


def test_speed_is_the_best_of_three(vectors, monkeypatch):
    ticks = itertools.accumulate([0, 4, 10, 2, 10, 5])  # searches take 4, 2 and 5 seconds
    monkeypatch.setattr(measure, "clock", lambda: next(ticks))
    asked, member = measure.sample(vectors, vectors, k=5, count=100, seed=0), FaissFlat()
    assert asked.measure(member, member.build(vectors, 0)) == (1.0, 100 / 2)


# the step


def index_step(folder, vectors, **index):
    """Run the step over vectors that are items and users alike; its info."""
    raw = {
        "name": "made",
        "data": {"source": {"kind": "synthetic"}},
        "split": {"test_day": "2024-01-07"},
        "index": index,
    }
    run = create_run(parse_config(raw), folder / "runs", index["kind"])
    run.step("export_embeddings").mkdir()
    np.save(run.step("export_embeddings") / "item_embeddings.npy", vectors)
    np.save(run.step("export_embeddings") / "user_embeddings.npy", vectors)
    (folder / index["kind"]).mkdir()
    return build_index(run, folder / index["kind"]).info


def test_an_index_that_loses_much_says_so(vectors, tmp_path, caplog):
    info = index_step(tmp_path, vectors, kind="annoy", trees=10, search_k=2000)
    assert info["kind"] == "annoy"
    assert info["trees"] == 10
    assert 0.1 < info["recall@200"] < 0.98
    assert f"annoy returns only {100 * info['recall@200']:.1f} %" in caplog.text
    assert "auto" in caplog.text


def test_the_step_tells_what_was_chosen(vectors, tmp_path, caplog, speeds):
    speeds["FaissIvf"] = 1e6
    info = index_step(
        tmp_path,
        vectors,
        kind="auto",
        flat_below=100,
        kinds=["faiss_ivf"],
        sample=100,
        min_recall=0.99,
    )
    assert info["chosen"]["kind"] == "faiss_ivf"
    chosen = {name: value for name, value in info["chosen"].items() if name != "kind"}
    (tried,) = [trial for trial in info["tried"] if trial["settings"] == chosen]
    assert tried["recall"] >= 0.99
    assert info["recall@200"] == pytest.approx(
        tried["recall"], abs=0.01
    )  # of all users, not of the 100 that chose
    assert json.loads(json.dumps(info)) == info
    assert "finds" not in caplog.text
