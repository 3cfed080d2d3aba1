"""Bounded looks at a finished run, for its report: each reads the run's files, samples what is
large, and returns small arrays.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow.parquet as pq
import torch
from safetensors import safe_open

from dssm_core import families
from dssm_core.aliases import JSON, Doubles, Floats, Ints
from dssm_core.columns import HOUR_MS, ITEM
from dssm_core.config import Config, Feature, Member
from dssm_core.evaluation import evaluate
from dssm_core.evaluation.queries import Slice
from dssm_core.families import INDEXES
from dssm_core.features.dataset import bucket_times, load_prepared
from dssm_core.features.events import Events, training_events
from dssm_core.features.ids import Ids
from dssm_core.features.interactions import Interactions
from dssm_core.retrieval.indexes import measure
from dssm_core.retrieval.indexes.protocol import Index
from dssm_core.runs.layout import (
    HISTORY_FILE,
    ITEM_EMBEDDINGS_FILE,
    ITEM_IDS_FILE,
    LOG_FILE,
    USER_EMBEDDINGS_FILE,
    table_file,
)
from dssm_core.runs.run import Run
from dssm_core.sampling.sampler_tables import load_sampler_tables, samplers_of
from dssm_core.sampling.samplers.protocol import Sampler, Tables

DRAWS = 200_000  # of the sampler
CELLS = 20_000_000  # event times item, where every event has candidates of its own
QUERIES = 2_000  # whose scores are looked at
MAPPED = 3_000  # items on the map
TIMED = 100  # queries that the index is timed with
COMPARED = range(
    400, 200_001
)  # numbers of vectors for which inverted lists are built to compare an exact index with
STEPS_DOWN, STEPS_UP = 4, 1  # of doublings around the knob as served


@dataclass(frozen=True)
class Calibration:
    """Of the items that can be drawn: planned probability and share of the draws, both [n]; how
    many draws were made.
    """

    planned: Doubles
    drawn: Doubles
    draws: int

    @property
    def inside(self) -> float:
        """Share of the items whose count lies within two standard deviations of what is planned:
        0.95 or so of a sound sampler.
        """
        spread = np.sqrt(self.draws * self.planned * (1 - self.planned))
        return float(
            (np.abs(self.drawn - self.planned) * self.draws <= np.maximum(2 * spread, 1)).mean()
        )

    @property
    def distance(self) -> float:
        """Total variation between planned and drawn, 0 to 1; a sound sampler's goes to 0 with the
        number of draws.
        """
        return float(np.abs(self.planned - self.drawn).sum() / 2)

    @property
    def chance(self) -> float:
        """What chance alone makes of the distance: half the sum of the mean absolute deviations of
        normal counts.
        """
        return float(np.sqrt(2 / np.pi * self.planned * (1 - self.planned) / self.draws).sum() / 2)


def calibration(run: Run) -> Calibration | None:
    """Draw from the run's sampler as of its last refresh, and count; None where the loss compares
    with every item.
    """
    found = next(iter(samplers_of(run.config).items()), None)
    if found is None:
        return None
    name, sampler = found
    folder = run.step("sample_negatives")
    log = load_prepared(folder).log
    return draw(
        sampler,
        load_sampler_tables(folder, "refit", name),
        log,
        bucket_times(run.config, log),
        run.config.seed,
    )


def draw(
    sampler: Sampler, tables: Tables, log: Interactions, as_of: torch.Tensor, seed: int
) -> Calibration:
    """Candidates of the last bucket that has events, against `log_q`; where each event has its own,
    of up to 100 events together.
    """
    events, codes = training_events(log, as_of), len(log.created)
    bucket = int(events.bucket.max())
    rows = (events.bucket == bucket).nonzero().squeeze(1)
    if sampler.own:
        most = max(1, min(100, CELLS // codes, len(rows)))
        rows = rows[torch.linspace(0, len(rows) - 1, most).long()]
    asked = Events(
        *(part[rows] for part in (events.user, events.item, events.bucket, events.as_of))
    )
    each = max(1, DRAWS // len(rows)) if sampler.own else DRAWS
    drawn = sampler.draw(tables, bucket, each, asked, torch.Generator().manual_seed(seed)).flatten()
    items = torch.arange(1, codes)
    log_q = sampler.log_q(
        tables, bucket, items.expand(len(rows), -1) if sampler.own else items, asked
    )
    planned = (log_q.double().exp().mean(0) if sampler.own else log_q.double().exp()).numpy()
    counts = torch.bincount(drawn, minlength=codes)[1:].numpy()
    possible = (planned > 0) | (counts > 0)
    return Calibration(planned[possible], counts[possible] / len(drawn), len(drawn))


@dataclass(frozen=True)
class Asked:
    """A sample of the warm queries: their rows in the slice [Q], vectors [Q, D], who is cold [Q]
    (see Vectors), and the items [N, D].
    """

    rows: Ints
    vectors: Floats
    cold: npt.NDArray[np.bool_]
    items: Floats


def ask(run: Run, warm: Slice) -> Asked:
    """At most QUERIES warm queries, evenly over the slice, as the served index is asked by them."""
    rows = np.linspace(0, len(warm.codes) - 1, min(QUERIES, len(warm.codes))).astype(np.int64)
    few = Slice(
        warm.users[rows],
        warm.codes[rows],
        warm.relevant,
        warm.histories.take(rows),
        warm.latest[rows],
    )
    with evaluate.query_encoder(run) as encode:
        encoded = encode(few)
        vectors = encoded.part(0, len(rows))
    return Asked(
        rows,
        vectors,
        encoded.cold,
        np.load(run.step("export_embeddings") / ITEM_EMBEDDINGS_FILE, mmap_mode="r"),
    )


def relevant_pairs(warm: Slice, rows: Ints) -> tuple[Ints, Ints]:
    """(place in rows, item row) of every relevant item of some queries. rows: [Q], ascending → 2 x
    [P].
    """
    query, item = np.divmod(warm.relevant.keys, warm.relevant.n_items)
    place = np.searchsorted(rows, query)
    kept = rows[np.minimum(place, len(rows) - 1)] == query
    return place[kept], item[kept]


def scores(asked: Asked, warm: Slice, k: int, seed: int) -> tuple[dict[str, Doubles], float]:
    """Scores of the items that a query should find, of as many at random, and of the item at its
    place k; and which share beats that.
    """
    place, item = relevant_pairs(warm, asked.rows)
    rng = np.random.default_rng(seed)
    kept = np.sort(rng.permutation(len(place))[: 10 * QUERIES])
    place, item = place[kept], item[kept]
    others = rng.integers(0, len(asked.items), len(place))
    dot = np.einsum("pd,pd->p", asked.vectors[place], asked.items[item])
    random = np.einsum("pd,pd->p", asked.vectors[place], asked.items[others])
    last = [
        _kth(part @ asked.items.T, k)
        for part in np.array_split(
            asked.vectors, max(1, len(asked.vectors) * len(asked.items) // CELLS)
        )
    ]
    cut = np.concatenate(last)  # [Q]
    told = {
        "clicked in the test": dot,
        "any item": random,
        f"at place {min(k, len(asked.items))} of the list": cut,
    }
    return told, float((dot >= cut[place]).mean())


def _kth(similarity: Floats, k: int) -> Floats:
    n = similarity.shape[1]
    return np.asarray(np.partition(similarity, n - min(k, n), axis=1)[:, n - min(k, n)])


@dataclass(frozen=True)
class Timing:
    """An index at one effort of searching: recall@k against exact search, ms a query."""

    label: str
    recall: float
    ms: float
    served: bool


def timings(run: Run) -> list[Timing]:
    """The served index at more and less effort than it is served with; an exact one beside inverted
    lists over the same vectors.
    """
    vectors: Floats = np.load(run.step("export_embeddings") / ITEM_EMBEDDINGS_FILE, mmap_mode="r")
    users: Floats = np.load(run.step("export_embeddings") / USER_EMBEDDINGS_FILE, mmap_mode="r")
    asked = measure.sample(vectors, users[1:], measure.K, TIMED, run.config.seed)
    choice, index = served_index(run)
    found = [_timing(asked, choice, index, served=True)]
    if families.build(INDEXES, choice).exact and len(vectors) in COMPARED:
        choice = Member.model_validate({"kind": "faiss_ivf", "nprobe": 2**STEPS_DOWN})
        index = families.build(INDEXES, choice).build(np.asarray(vectors), run.config.seed)
        found.append(_timing(asked, choice, index))
    efforts = _efforts(choice, len(vectors))
    found += [_timing(asked, other, index) for other in efforts]
    return sorted(found, key=lambda each: (not each.served, each.recall, each.ms))


def served_index(run: Run) -> tuple[Member, Any]:
    """The index that is served, loaded, and the choice of its member: the configured one, or the
    one that it has chosen.
    """
    member = families.build(INDEXES, run.config.index)
    index = member.load(run.step("build_index"))
    return member.inner(index) or (run.config.index, index)


def _efforts(choice: Member, most: int) -> list[Member]:
    """The same index at efforts around its own, doubling."""
    member: Index = families.build(INDEXES, choice)
    if member.effort is None:
        return []
    own = getattr(member, member.effort)
    least = member.least_effort(measure.K)
    values = {own * 2**step for step in range(-STEPS_DOWN, STEPS_UP + 1)} - {0, own}
    efforts = sorted(
        int(value) for value in values if least <= value <= max(most, own) and value == int(value)
    )
    return [
        Member.model_validate({**choice.model_dump(), member.effort: value}) for value in efforts
    ]


def _timing(asked: measure.Sample, choice: Member, index: Any, served: bool = False) -> Timing:
    member: Index = families.build(INDEXES, choice)
    recall, rate = asked.measure(member, index)
    effort = f", {member.effort} {getattr(member, member.effort)}" if member.effort else ""
    return Timing(f"{choice.kind}{effort}", recall, 1000 / rate, served)


@dataclass(frozen=True)
class Map:
    """Items on a plane: [n, 2], what colours them [n] (texts, or numbers), its name, and the share
    of variance that the plane shows.
    """

    places: Doubles
    colours: npt.NDArray[Any]
    name: str
    shown: float


def item_map(run: Run) -> Map:
    """The first two principal components of the items' vectors.

    Coloured by the first categorical or multi-valued item column (its first value), else by age,
    else, where times say nothing, by clicks.
    """
    vectors: Floats = np.load(run.step("export_embeddings") / ITEM_EMBEDDINGS_FILE, mmap_mode="r")
    rows = np.sort(np.random.default_rng(run.config.seed).permutation(len(vectors))[:MAPPED])
    places, shown = principal(np.asarray(vectors[rows], dtype=np.float64))
    for feature in run.config.features.columns.item:
        if (
            feature.kind in ("categorical", "multi")
            and (known := item_columns(run, [feature.column])) is not None
        ):
            return Map(
                places,
                _first_values(known[feature.column].iloc[rows], feature),
                feature.column,
                shown,
            )
    with safe_open(run.step("sample_negatives") / LOG_FILE, framework="pt") as tensors:
        if not run.config.split.by_time:
            clicks = np.bincount(
                tensors.get_tensor("log.item").numpy(), minlength=len(vectors) + 1
            )[1:]
            return Map(places, clicks[rows].astype(np.float64), "clicks in train", shown)
        created, (_, end) = (
            tensors.get_tensor("log.created").numpy()[1:],
            tensors.get_tensor("log.window").tolist(),
        )
    return Map(places, (end - created[rows]) / HOUR_MS, "hours since first seen", shown)


def _first_values(values: pd.Series[Any], feature: Feature) -> npt.NDArray[Any]:
    """Each cell's value as text, of several the first. [n] → [n]"""
    if feature.kind == "multi":
        values = (
            values.str.split(feature.separator, regex=False)
            if pd.api.types.is_string_dtype(values)
            else values
        ).str[0]
    texts: npt.NDArray[Any] = (
        values.astype(object).where(values.notna(), "(none)").astype(str).to_numpy(dtype=object)
    )
    return texts


def principal(vectors: Doubles) -> tuple[Doubles, float]:
    """Vectors on the plane in which they vary most, and the share of their variance in it. [n, D] →
    [n, 2]
    """
    centred = vectors - vectors.mean(0)
    values, axes = np.linalg.eigh(centred.T @ centred)  # [D], [D, D], ascending
    plane = axes[:, ::-1][:, :2]
    plane = plane * np.sign(
        plane[np.abs(plane).argmax(0), np.arange(plane.shape[1])]
    )  # an axis has no sign of its own
    return centred @ plane, float(values[-2:].sum() / max(values.sum(), 1e-12))


def item_columns(run: Run, columns: list[str]) -> pd.DataFrame | None:
    """Columns of the items table in the order of the index's rows; None where there is no such
    table or column. → N rows
    """
    file = run.step("validate_data") / table_file("items")
    kept = [
        name
        for name in columns
        if file.is_file() and name in pq.read_schema(file).names and name != ITEM
    ]
    if not kept:
        return None
    ids = Ids.load(run.step("export_embeddings") / ITEM_IDS_FILE)
    return pd.read_parquet(file, columns=[ITEM, *kept]).set_index(ITEM).reindex(ids.index)


def described(run: Run) -> tuple[npt.NDArray[Any], pd.DataFrame | None]:
    """The index's item ids [N], and of each the columns that people know it by: the first three
    features of items.
    """
    ids = Ids.load(run.step("export_embeddings") / ITEM_IDS_FILE)
    wanted = [
        feature.column for feature in run.config.features.columns.item if feature.column != ITEM
    ]
    return ids.index.to_numpy(), item_columns(run, list(dict.fromkeys(wanted))[:3])


def neighbours(vectors: Floats, items: Ints, count: int) -> tuple[Ints, Floats]:
    """The `count` nearest others of some items, and how near. items: [n] → 2 x [n, count]."""
    similarity = vectors[items] @ vectors.T  # [n, N]
    similarity[np.arange(len(items)), items] = -np.inf
    order = np.argsort(-similarity, axis=1, kind="stable")[:, :count]
    return order, np.take_along_axis(similarity, order, 1)


def spread(counts: Ints, count: int) -> Ints:
    """Items from the most clicked to the least, evenly over the logarithm of their place; those
    with clicks. [N] → [count or fewer]
    """
    order = np.argsort(-counts, kind="stable")[: int((counts > 0).sum())]
    places = np.unique(np.geomspace(1, max(len(order), 1), count).astype(np.int64)) - 1
    return order[places[places < len(order)]]


@dataclass(frozen=True)
class Example:
    """A query: who, what was known, the list with its hits, how many were to be found and how many
    were.
    """

    user: Any
    history: Ints
    recalled: Ints
    hits: npt.NDArray[np.bool_]
    relevant: int
    found: int


def examples(
    run: Run, asked: Asked, warm: Slice, config: Config, count: int, most: int
) -> list[Example]:
    """Queries from the best to the worst answered, evenly over recall@gate.k, with their newest
    history and first `most` items.
    """
    k = config.gate.k
    search = evaluate.vector_search(
        run, evaluate.Vectors(asked.vectors, np.arange(len(asked.rows)), asked.cold), "served"
    )
    few = Slice(
        warm.users[asked.rows],
        warm.codes[asked.rows],
        warm.relevant,
        warm.histories.take(asked.rows),
        warm.latest[asked.rows],
    )
    rows = evaluate.answer(
        search, few, 0, len(asked.rows), k, config.evaluation.exclude_seen
    )  # [Q, k]
    wanted = asked.rows[:, None] * warm.relevant.n_items + rows
    hits = np.isin(wanted, warm.relevant.keys) & (rows >= 0)
    relevant = warm.relevant.counts[asked.rows]
    order = np.argsort(-hits.sum(1) / relevant, kind="stable")
    chosen = order[np.unique(np.linspace(0, len(order) - 1, count).astype(np.int64))]
    newest = few.histories.take(chosen).latest(most)
    return [
        Example(
            few.users[query],
            newest.items[newest.ptr[nth] : newest.ptr[nth + 1]],
            rows[query, :most],
            hits[query, :most],
            int(n),
            int(found),
        )
        for nth, (query, n, found) in enumerate(
            zip(chosen, relevant[chosen], hits[chosen].sum(1), strict=True)
        )
    ]


def history_of(folder: Path) -> list[JSON]:
    """The trainer's points; empty where there are none."""
    file = folder / HISTORY_FILE
    lines = file.read_text(encoding="utf-8").splitlines() if file.is_file() else []
    return [json.loads(line) for line in lines if line]
