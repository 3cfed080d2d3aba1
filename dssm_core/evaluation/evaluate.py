"""Offline evaluation: the test part's queries are answered by the served index, exact search and
the baselines.

See queries.py for who asks. Every answerer is asked in the same way, so that leaving out what a
query has already taken (`evaluation.exclude_seen`) is one rule for all.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd

from dssm_core import families, metrics
from dssm_core.aliases import JSON, Doubles, Floats, Ints
from dssm_core.config import Config
from dssm_core.evaluation.baselines.protocol import Fitted
from dssm_core.evaluation.queries import Pairs, Slice, Window, read_window, users_frame
from dssm_core.families import BASELINES, INDEXES
from dssm_core.features.histories import Histories
from dssm_core.features.ids import Ids
from dssm_core.features.popularity import top
from dssm_core.retrieval.bundle import Bundle, assemble, open_bundle
from dssm_core.retrieval.indexes.faiss_flat import FaissFlat
from dssm_core.retrieval.indexes.protocol import Index
from dssm_core.retrieval.new_users import HOT, HotList, open_hot_list
from dssm_core.runs.files import scratch
from dssm_core.runs.layout import ITEM_EMBEDDINGS_FILE, USER_EMBEDDINGS_FILE
from dssm_core.runs.run import Run

QUERIES_AT_ONCE = 4096  # 4096 x 200 rows and hits: tens of MB, whatever the test day's size

Search = Callable[
    [int, int, int], Ints
]  # queries [first, last) of a slice, K -> item rows [last - first, K or fewer]


@dataclass(frozen=True)
class Vectors:
    """A query vector each: rows [Q] of a matrix [U, D] that may lie on disk.

    cold [Q]: who is answered by the bundle's hot list instead, where it holds one (see
    new_users.py).
    """

    matrix: Floats
    rows: Ints
    cold: npt.NDArray[np.bool_]

    def part(self, first: int, last: int) -> Floats:
        """Those of queries [first, last). → [last - first, D]"""
        return np.asarray(self.matrix[self.rows[first:last]])


Encode = Callable[[Slice], Vectors]


class Curve(NamedTuple):
    """Recall of the first 1..K places: its mean over the queries [K], and that mean's standard
    error [K].
    """

    mean: Doubles
    error: Doubles


@dataclass(frozen=True)
class Measured:
    """Scores (metric@k, confidence interval of the gate's recall), and recall by list length."""

    scores: JSON
    curve: Curve


@dataclass
class Timed:
    """A fitted baseline; seconds [s] that fitting and all lists so far took."""

    fitted: Fitted
    info: JSON
    seconds: float

    def lists(self, past: Histories, k: int) -> Ints:
        """See Fitted."""
        started = time.perf_counter()
        rows = self.fitted.lists(past, k)
        self.seconds += time.perf_counter() - started
        return rows


@dataclass(frozen=True)
class Report:
    """metrics: as the run's summary shows them; curves: recall@1..K of warm, by who answered."""

    metrics: JSON
    curves: dict[str, Curve]


def evaluate(run: Run, window: Window | None = None) -> Report:
    """Measure a run's served index, exact search, baselines and ceiling on the same queries."""
    window = window or read_window(run)
    baselines, key = fit_baselines(run.config, window), f"recall@{run.config.gate.k}"
    with query_encoder(run) as encode:
        found = _ask_everyone(run, window.warm, baselines, encode)
        everyone = _ask_everyone(run, window.all, baselines, encode)
        pointwise = judge_pairs(run, window.pairs, encode)
        parts = {
            name: measure(vector_search(run, encode(part), "served"), part, light(run.config))
            for name, part in window.parts.items()
        }
    report = _by_answerer(found)
    for name, fitted in baselines.items():
        report["baselines"][name] |= fitted.info | {"seconds": round(fitted.seconds, 3)}
    report["ceiling"] = {key: ceiling(window, run.config).scores[key]}
    report["all"] = _by_answerer(everyone)
    report["parts"] = {
        name: brief(measured, window.parts[name], key) for name, measured in parts.items()
    }
    report["queries"] = {"warm": len(window.warm.codes), "all": len(window.all.codes)}
    report |= {"pointwise": pointwise} if pointwise else {}
    if run.config.evaluation.rolling:
        from dssm_core.evaluation import rolling

        with served_bundle(run) as folder:
            report["rolling"] = rolling.report(run, window, folder)
    return Report(report, {name: measured.curve for name, measured in found.items()})


def light(config: Config, resamples: int | None = None) -> Config:
    """The config with the gate's own cut-off alone."""
    settings = {"ks": (config.gate.k,), "bootstrap": resamples or config.evaluation.bootstrap}
    return config.model_copy(update={"evaluation": config.evaluation.model_copy(update=settings)})


def brief(measured: Measured, part: Slice, key: str) -> JSON:
    """The gate's recall of a part with its interval, and how many asked."""
    return {name: measured.scores[name] for name in (key, f"{key}_low", f"{key}_high")} | {
        "queries": len(part.codes)
    }


def _ask_everyone(
    run: Run, asked: Slice, baselines: Mapping[str, Timed], encode: Encode
) -> dict[str, Measured]:
    """The served index, exact search and each baseline on one slice's queries."""
    vectors = encode(asked)
    answers: dict[str, Search] = {
        name: vector_search(run, vectors, name) for name in ("served", "exact")
    }
    answers |= {name: list_search(fitted, asked.histories) for name, fitted in baselines.items()}
    return {name: measure(search, asked, run.config) for name, search in answers.items()}


def _by_answerer(found: Mapping[str, Measured]) -> JSON:
    scores = {name: dict(measured.scores) for name, measured in found.items()}
    return {"served": scores.pop("served"), "exact": scores.pop("exact"), "baselines": scores}


def measure(search: Search, asked: Slice, config: Config) -> Measured:
    """Ask all queries of a slice, some thousands at a time, and average over queries; None where
    nobody asks.

    micro_recall: hits over all relevant items of all queries, so that a query counts by how much it
    has to find.
    """
    ks, gate_k = config.evaluation.ks, config.gate.k
    k_max, n = max(ks), len(asked.codes)
    values = {f"{name}@{k}": np.zeros(n) for name in metrics.METRICS for k in ks}
    shown = {k: np.zeros(asked.relevant.n_items, dtype=np.bool_) for k in ks}
    curve, squares, found = np.zeros(k_max), np.zeros(k_max), np.zeros(k_max)
    for first in range(0, n, QUERIES_AT_ONCE):
        last = min(first + QUERIES_AT_ONCE, n)
        rows = answer(search, asked, first, last, k_max, config.evaluation.exclude_seen)
        hits, counts = asked.relevant.hits(rows, first), asked.relevant.counts[first:last]
        for key in values:
            name, _, place = key.partition("@")
            values[key][first:last] = metrics.METRICS[name](hits, counts, int(place))
        for k, mask in shown.items():
            mask[rows[:, :k][rows[:, :k] >= 0]] = True
        recalled = np.cumsum(hits, 1) / counts[:, None]  # [B, K]
        curve += recalled.sum(0)
        squares += np.square(recalled).sum(0)
        found += np.cumsum(hits.sum(0))
    scores: JSON = {key: float(value.mean()) if n else None for key, value in values.items()}
    scores |= {
        f"micro_recall@{k}": float(found[k - 1] / asked.relevant.counts.sum()) if n else None
        for k in ks
    }
    scores |= {f"coverage@{k}": metrics.coverage(mask) for k, mask in shown.items()}
    key, settings = f"recall@{gate_k}", config.evaluation
    low, high = metrics.bootstrap(
        values[key], settings.bootstrap, np.random.default_rng(config.seed)
    )
    scores |= {
        f"{key}_{side}": None if math.isnan(at) else at
        for side, at in (("low", low), ("high", high))
    }
    return Measured(scores, mean_and_error(curve, squares, n))


def mean_and_error(sums: Doubles, squares: Doubles, n: int) -> Curve:
    """Mean of n values and its standard error, from their sums and sums of squares; 0 of none. [K]
    → 2 x [K]
    """
    mean = sums / max(n, 1)
    return Curve(mean, np.sqrt(np.maximum(squares - n * mean**2, 0) / max(n - 1, 1) / max(n, 1)))


def answer(search: Search, asked: Slice, first: int, last: int, k: int, exclude_seen: bool) -> Ints:
    """The lists [last - first, k] of some queries; without what each has taken, where that is asked
    for.

    A relevant item that its query has taken before stays relevant: with `exclude_seen` it can only
    be missed.
    """
    if not exclude_seen:
        return pad(search(first, last, k), k)
    past = asked.histories.part(first, last)
    return pad(past.drop_from(search(first, last, k + int(past.counts.max(initial=0)))), k)


def pad(rows: Ints, k: int) -> Ints:
    """The first k places of each list, -1 where it is shorter. [B, K] -> [B, k]"""
    return np.pad(rows[:, :k], ((0, 0), (0, max(0, k - rows.shape[1]))), constant_values=-1)


@contextmanager
def served_bundle(run: Run) -> Iterator[Path]:
    """The run's bundle as it would be registered, in a folder that lasts as long as the context."""
    with scratch(run.root) as folder:
        yield assemble(run, Path(folder) / "bundle")


@contextmanager
def query_encoder(run: Run) -> Iterator[Encode]:
    """A function: the vectors of a slice's queries. As exported, or, where each row asks, from the
    history before the row.
    """
    if not run.config.split.by_row:
        users: Floats = np.load(run.step("export_embeddings") / USER_EMBEDDINGS_FILE, mmap_mode="r")
        yield lambda asked: Vectors(users, asked.codes, asked.codes == 0)
        return
    config = run.config
    context = tuple(feature.column for feature in config.features.columns.context)
    with served_bundle(run) as folder:
        bundle = open_bundle(folder)

        def encode(asked: Slice) -> Vectors:
            frame, rows = (
                users_frame(run, asked, config.features.history.length, context),
                np.arange(len(asked.codes)),
            )
            frames = [
                frame.iloc[first : first + QUERIES_AT_ONCE] for first in rows[::QUERIES_AT_ONCE]
            ]
            parts = [
                (bundle.encoder.users(part), bundle.plan(part).source == HOT) for part in frames
            ]
            if not parts:
                return Vectors(np.zeros((0, 1), np.float32), rows, np.zeros(0, np.bool_))
            vectors, cold = (np.concatenate(each) for each in zip(*parts, strict=True))
            return Vectors(vectors, rows, cold)

        yield encode


def vector_search(run: Run, vectors: Vectors, which: str) -> Search:
    """Nearest items of each query's vector: in the index as served, or in all vectors (`exact`).
    Newcomers as they are served.
    """
    hot = open_hot_list(run.step("export_embeddings"))
    if which == "served":
        member = families.build(INDEXES, run.config.index)
        index = member.load(run.step("build_index"))
    else:
        member = FaissFlat()
        index = member.build(
            np.load(run.step("export_embeddings") / ITEM_EMBEDDINGS_FILE), run.config.seed
        )
    return nearest(member, index, vectors, hot)


def nearest(member: Index, index: Any, vectors: Vectors, hot: HotList | None) -> Search:
    """An index's answers to queries; those to newcomers are `hot`, where there is a list."""

    def search(first: int, last: int, k: int) -> Ints:
        found = member.search(index, vectors.part(first, last), k)
        rows: Ints = (hot.answer(vectors.cold[first:last], *found) if hot else found)[0]
        return rows

    return search


def judge_pairs(run: Run, pairs: Pairs, encode: Encode) -> JSON:
    """AUC, GAUC and log-loss of the towers' logits on the test rows, where some are positives and
    some are not; else {}.

    Log-loss is of use only for towers trained to a probability (`loss.kind: bce`); None where no
    temperature is known.
    """
    if not len(pairs.labels):
        return {}
    vectors, items = (
        encode(pairs.asked),
        np.load(run.step("export_embeddings") / ITEM_EMBEDDINGS_FILE, mmap_mode="r"),
    )
    scores = np.zeros(len(pairs.labels))
    for first in range(0, len(scores), QUERIES_AT_ONCE):
        part = slice(first, min(first + QUERIES_AT_ONCE, len(scores)))
        scores[part] = (vectors.part(part.start, part.stop) * items[pairs.items[part]]).sum(1)
    trained = run.manifest("train_towers")
    temperature = trained.info.get("temperature") if trained else None
    users = pd.factorize(pairs.asked.users)[0]
    found: JSON = {
        "auc": metrics.auc(scores, pairs.labels),
        "gauc": metrics.gauc(scores, pairs.labels, users),
    }
    found["log_loss"] = (
        metrics.log_loss(scores / temperature, pairs.labels) if temperature else None
    )
    return found | {"rows": len(scores), "positives": int(pairs.labels.sum())}


def bundle_search(bundle: Bundle, frame: pd.DataFrame, items: Ids) -> Search:
    """Another model's answers in this catalogue's rows; an item that it alone knows becomes -1, a
    miss.
    """
    ours = np.append(
        items.encode(bundle.items.index) - 1, -1
    )  # its row -1 (no more items) stays -1
    return lambda first, last, k: ours[bundle.search(frame.iloc[first:last], k)[0]]


def one_list(rows: Ints) -> Search:
    """The same list for everybody."""
    return lambda first, last, k: np.broadcast_to(rows[:k], (last - first, len(rows[:k])))


def list_search(fitted: Timed, past: Histories) -> Search:
    """A baseline's lists for each query's past."""
    return lambda first, last, k: fitted.lists(past.part(first, last), k)


def fit_baselines(config: Config, window: Window) -> dict[str, Timed]:
    """Each baseline as of the cutoff; if it chose among lists, also what each of these would have
    reached.
    """
    baselines = {}
    for chosen in config.evaluation.baselines:
        member = families.build(BASELINES, chosen)
        started = time.perf_counter()
        fitted = member.fit(window.train, window.cutoff_ms)
        seconds = time.perf_counter() - started
        variants = member.variants(window.train, window.cutoff_ms)
        after = {"by_window": _by_variant(window, variants, config)} if variants else {}
        baselines[chosen.name] = Timed(fitted, fitted.info | after, seconds)
    return baselines


def ceiling(window: Window, config: Config) -> Measured:
    """What one list for all could reach at most: the test window's own most clicked items that
    train has seen.
    """
    return measure(one_list(top(len(window.test_counts), window.test_counts)), window.warm, config)


def _by_variant(window: Window, variants: dict[str, Ints], config: Config) -> JSON:
    """Test recall of each list, for people: no choice can be made by it."""
    k, brief_config = config.gate.k, light(config, 10)
    return {
        name: measure(one_list(rows), window.warm, brief_config).scores[f"recall@{k}"]
        for name, rows in variants.items()
    }
