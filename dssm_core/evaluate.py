"""Offline evaluation: the test window's users ask, the served index, exact search and the baselines answer.

Two slices of the same window. `warm` (the headline): users and items that train has seen. `all`: everyone and everything;
an item that train has not seen can only be missed, a user it has not seen asks as the unknown user.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow.parquet as pq

from dssm_core import families, metrics
from dssm_core.artifacts import JSON, Run
from dssm_core.baselines import BASELINES
from dssm_core.baselines.protocol import Clicks, Fitted, top
from dssm_core.baselines.recent_hot import RecentHot, recent
from dssm_core.bundle import HISTORY, Bundle
from dssm_core.config import Config, Evaluation
from dssm_core.histories import Histories
from dssm_core.ids import Ids
from dssm_core.indexes import INDEXES
from dssm_core.indexes.faiss_flat import FaissFlat
from dssm_core.indexes.protocol import Floats, Rows
from dssm_core.metrics import Doubles, Ints, Relevant
from dssm_core.schema import ITEM, LABEL, TIME, USER

QUERIES_AT_ONCE = 4096  # 4096 x 200 rows and hits: tens of MB, whatever the test day's size
GATE_K = 200

Search = Callable[[int, int], Rows]  # queries [first, last) of a slice -> item rows [last - first, K]


@dataclass(frozen=True)
class Slice:
    """Queries and their answers. users [Q] external ids; codes [Q]: rows of the user embeddings (0 = unknown)."""

    users: npt.NDArray[Any]
    codes: Ints
    relevant: Relevant


@dataclass(frozen=True)
class Window:
    """A run's split in codes: train positives, both slices, and the test window's clicks an item [N]."""

    items: Ids
    train: Clicks
    cutoff_ms: int
    warm: Slice
    all: Slice
    test_counts: Ints


@dataclass(frozen=True)
class Measured:
    """Scores (metric@k, confidence interval of recall@200), and the mean recall of the first 1..K places [K]."""

    scores: JSON
    curve: Doubles


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
    """metrics: as the run's summary shows them; curves: mean recall@1..K of warm, by who answered."""

    metrics: JSON
    curves: dict[str, Doubles]


def evaluate(run: Run, window: Window | None = None) -> Report:
    """Measure a run's served index, exact search, baselines and ceiling on the same queries."""
    window = window or read_window(run)
    settings, seed = run.config.evaluation, run.config.seed
    baselines = fit_baselines(run.config, window)
    found = _ask_everyone(run, window, window.warm, baselines)
    report = _by_answerer(found)
    for name, fitted in baselines.items():
        report["baselines"][name] |= fitted.info | {"seconds": round(fitted.seconds, 3)}
    report["ceiling"] = {f"recall@{GATE_K}": ceiling(window, settings, seed).scores[f"recall@{GATE_K}"]}
    report["all"] = _by_answerer(_ask_everyone(run, window, window.all, baselines))
    report["queries"] = {"warm": len(window.warm.codes), "all": len(window.all.codes)}
    return Report(report, {name: measured.curve for name, measured in found.items()})


def _ask_everyone(run: Run, window: Window, asked: Slice, baselines: Mapping[str, Timed]) -> dict[str, Measured]:
    """The served index, exact search and each baseline on one slice's queries."""
    settings, k = run.config.evaluation, max(run.config.evaluation.ks)
    answers: dict[str, Search] = {name: vector_search(run, asked, name, k) for name in ("served", "exact")}
    past = histories(window.train, asked.codes)
    answers |= {name: list_search(fitted, past, k) for name, fitted in baselines.items()}
    return {name: measure(search, asked, settings, run.config.seed) for name, search in answers.items()}


def _by_answerer(found: Mapping[str, Measured]) -> JSON:
    scores = {name: dict(measured.scores) for name, measured in found.items()}
    return {"served": scores.pop("served"), "exact": scores.pop("exact"), "baselines": scores}


def read_window(run: Run) -> Window:
    """Train and test positives in codes, and the slices; rows with label 0 are no clicks."""
    split, ids = run.step("split_by_time"), run.step("export_embeddings")
    users, items = Ids.load(ids / "user_ids.parquet"), Ids.load(ids / "item_ids.parquet")
    train_frame, test_frame = (_positives(split / f"{name}.parquet", [USER, ITEM, TIME]) for name in ("train", "test"))
    n_items = len(items) - 1
    train = _clicks(train_frame, users, items)
    pairs = test_frame[[USER, ITEM]].drop_duplicates()
    codes, rows = users.encode(pairs[USER]), items.encode(pairs[ITEM]) - 1
    seen_users, seen_items = (_seen(train.users, len(users)), _seen(train.items, n_items))
    is_warm = seen_users[codes] & (rows >= 0) & seen_items[rows]
    names = pairs[USER].to_numpy()
    everyone = make_slice(names, codes, np.where(rows >= 0, rows, -1), n_items)
    warm = make_slice(names[is_warm], codes[is_warm], rows[is_warm], n_items)
    tested = items.encode(test_frame[ITEM]) - 1
    counts = np.bincount(tested[tested >= 0], minlength=n_items) * seen_items
    return Window(items, train, run.need("split_by_time").info["cutoff_ms"], warm, everyone, counts)


def make_slice(users: npt.NDArray[Any], codes: Ints, rows: Ints, n_items: int) -> Slice:
    """A slice from distinct pairs [P]: external user, user code, item row (-1: not in the catalogue)."""
    queries, first = pd.factorize(users)
    code_of = np.zeros(len(first), dtype=np.int64)
    code_of[queries] = codes
    return Slice(np.asarray(first), code_of, Relevant.of(queries.astype(np.int64), rows, len(first), n_items))


def measure(search: Search, asked: Slice, settings: Evaluation, seed: int) -> Measured:
    """Ask all queries of a slice, some thousands at a time, and average over users; None where nobody asks."""
    k_max, n = max(settings.ks), len(asked.codes)
    values = {f"{name}@{k}": np.zeros(n) for name in metrics.METRICS for k in settings.ks}
    shown = {k: np.zeros(asked.relevant.n_items, dtype=np.bool_) for k in settings.ks}
    curve = np.zeros(k_max)
    for first in range(0, n, QUERIES_AT_ONCE):
        last = min(first + QUERIES_AT_ONCE, n)
        rows = pad(search(first, last), k_max)
        hits, counts = asked.relevant.hits(rows, first), asked.relevant.counts[first:last]
        for key in values:
            name, _, place = key.partition("@")
            values[key][first:last] = metrics.METRICS[name](hits, counts, int(place))
        for k, mask in shown.items():
            mask[rows[:, :k][rows[:, :k] >= 0]] = True
        curve += (np.cumsum(hits, 1) / counts[:, None]).sum(0)
    scores: JSON = {key: float(value.mean()) if n else None for key, value in values.items()}
    scores |= {f"coverage@{k}": metrics.coverage(mask) for k, mask in shown.items()}
    low, high = metrics.bootstrap(values[f"recall@{GATE_K}"], settings.bootstrap, np.random.default_rng(seed))
    scores |= {f"recall@{GATE_K}_{side}": None if math.isnan(at) else at for side, at in (("low", low), ("high", high))}
    return Measured(scores, curve / max(n, 1))


def pad(rows: Rows, k: int) -> Rows:
    """The first k places of each list, -1 where it is shorter. [B, K] -> [B, k]"""
    return np.pad(rows[:, :k], ((0, 0), (0, max(0, k - rows.shape[1]))), constant_values=-1)


def vector_search(run: Run, asked: Slice, which: str, k: int) -> Search:
    """Nearest items of each query's exported vector: in the index as served, or in all vectors (`exact`)."""
    folder = run.step("export_embeddings")
    users: Floats = np.load(folder / "user_embeddings.npy", mmap_mode="r")
    if which == "served":
        member = families.build(INDEXES, run.config.index)
        index = member.load(run.step("build_index"))
    else:
        member = FaissFlat()
        index = member.build(np.load(folder / "item_embeddings.npy"), run.config.seed)

    def search(first: int, last: int) -> Rows:
        rows: Rows = member.search(index, np.asarray(users[asked.codes[first:last]]), k)[0]
        return rows

    return search


def bundle_search(bundle: Bundle, frame: pd.DataFrame, items: Ids, k: int) -> Search:
    """Another model's answers in this catalogue's rows; an item that it alone knows becomes -1, a miss."""
    ours = np.append(items.encode(bundle.items.index) - 1, -1)  # its row -1 (no more items) stays -1
    return lambda first, last: ours[bundle.search(frame.iloc[first:last], k)[0]]


def one_list(rows: Rows) -> Search:
    """The same list for everybody."""
    return lambda first, last: np.broadcast_to(rows, (last - first, len(rows)))


def list_search(fitted: Timed, past: Histories, k: int) -> Search:
    """A baseline's lists for each query's past."""
    return lambda first, last: fitted.lists(past.part(first, last), k)


def histories(train: Clicks, codes: Ints) -> Histories:
    """All train rows of each query's user, oldest first; the unknown user (code 0) has none. codes: [Q]"""
    known = train.users > 0
    users = max(train.users.max(initial=0), codes.max(initial=0)) + 1
    return Histories.of(train.users[known], train.items[known], users).take(codes)


def fit_baselines(config: Config, window: Window) -> dict[str, Timed]:
    """Each baseline as of the cutoff; for `recent_hot` also what every window would have reached."""
    baselines = {}
    for chosen in config.evaluation.baselines:
        member = families.build(BASELINES, chosen)
        started = time.perf_counter()
        fitted = member.fit(window.train, window.cutoff_ms)
        seconds = time.perf_counter() - started
        after = {"by_window": _by_window(window, member.windows_h)} if isinstance(member, RecentHot) else {}
        baselines[chosen.name] = Timed(fitted, fitted.info | after, seconds)
    return baselines


def ceiling(window: Window, settings: Evaluation, seed: int) -> Measured:
    """What one list for all could reach at most: the test window's own most clicked items that train has seen."""
    return measure(one_list(top(max(settings.ks), window.test_counts)), window.warm, settings, seed)


def users_frame(run: Run, asked: Slice, length: int, context: tuple[str, ...] = ()) -> pd.DataFrame:
    """What a served model is told of each query: user_id, history (at most `length` items, newest last), latest context.

    Everything comes from train, so it was known at the cutoff.
    """
    file = run.step("split_by_time") / "train.parquet"
    told = tuple(name for name in context if name in pq.read_schema(file).names)
    log = _positives(file, [USER, ITEM, *told])
    log = log[log[USER].isin(asked.users)]
    histories = log.groupby(USER, sort=False).tail(max(length, 1)).groupby(USER)[ITEM].agg(list)
    frame = pd.DataFrame({USER: asked.users})
    cells = frame[USER].map(histories)
    frame[HISTORY] = [cell if isinstance(cell, list) and length else [] for cell in cells]
    latest = log.drop_duplicates(USER, keep="last").set_index(USER)[list(told)] if told else None
    return frame if latest is None else frame.join(latest, on=USER)


def _by_window(window: Window, windows_h: tuple[int, ...]) -> JSON:
    """Test recall@200 of each window, for people: nobody could have chosen by it."""
    light = Evaluation(ks=(GATE_K,), bootstrap=10)
    lists = {hours: recent(window.train, window.cutoff_ms, hours, GATE_K) for hours in windows_h}
    found = {hours: measure(one_list(rows), window.warm, light, 0) for hours, rows in lists.items()}
    return {f"{hours}h": measured.scores[f"recall@{GATE_K}"] for hours, measured in found.items()}


def _positives(file: Any, columns: list[str]) -> pd.DataFrame:
    """The rows of label 1 in file order, which is time order."""
    frame: pd.DataFrame = pq.read_table(file, columns=columns, filters=[(LABEL, "=", 1)]).to_pandas()
    return frame


def _clicks(frame: pd.DataFrame, users: Ids, items: Ids) -> Clicks:
    codes, rows = users.encode(frame[USER]), items.encode(frame[ITEM]) - 1
    known = rows >= 0
    return Clicks(codes[known], rows[known], frame[TIME].to_numpy(dtype=np.int64)[known], len(items) - 1)


def _seen(codes: Ints, n: int) -> npt.NDArray[np.bool_]:
    """Which of 0..n-1 occur; n is at least one more than every code."""
    return np.bincount(codes, minlength=n)[:n] > 0
