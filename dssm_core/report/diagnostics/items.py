"""The items of a run: their map, their neighbours, and what people know them by."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow.parquet as pq
from safetensors import safe_open

from dssm_core.aliases import Doubles, Floats, Ints
from dssm_core.columns import HOUR_MS, ITEM
from dssm_core.config import Feature
from dssm_core.evaluation.answers import ServedRun
from dssm_core.features.ids import Ids
from dssm_core.runs.layout import ITEM_IDS_FILE, LOG_FILE, table_file
from dssm_core.runs.run import Run

ITEMS_ON_MAP = 3_000
COLUMNS_SHOWN = 3


@dataclass(frozen=True)
class ItemMap:
    """Items on a plane [n, 2], and what colours them [n]: texts, or numbers called `name`.

    shown: share of the variance that the plane holds.
    """

    positions: Doubles
    colours: npt.NDArray[Any]
    name: str
    shown: float


def item_map(opened: ServedRun) -> ItemMap:
    """The first two principal components of the item embeddings.

    They are coloured by the first categorical or multi-valued item column (its first value); else
    by age; or by clicks, where the split is not by time.
    """
    run = opened.run
    vectors = opened.items
    rng = np.random.default_rng(run.config.seed)
    rows = np.sort(rng.permutation(len(vectors))[:ITEMS_ON_MAP])
    positions, shown = principal(np.asarray(vectors[rows], dtype=np.float64))
    for feature in run.config.features.columns.item:
        if feature.kind not in ("categorical", "multi"):
            continue
        table = item_columns(run, [feature.column])
        if table is not None:
            colours = first_values(table[feature.column].iloc[rows], feature)
            return ItemMap(positions, colours, feature.column, shown)
    with safe_open(run.step("sample_negatives") / LOG_FILE, framework="pt") as tensors:
        if not run.config.split.by_time:
            item = tensors.get_tensor("log.item").numpy()
            clicks = np.bincount(item, minlength=len(vectors) + 1)[1:]
            colours = clicks[rows].astype(np.float64)
            return ItemMap(positions, colours, "clicks in the training set", shown)
        created = tensors.get_tensor("log.created").numpy()[1:]
        _, end = tensors.get_tensor("log.window").tolist()
    return ItemMap(positions, (end - created[rows]) / HOUR_MS, "hours since first seen", shown)


def first_values(values: pd.Series[Any], feature: Feature) -> npt.NDArray[Any]:
    """The value of each cell as text; the first of several. [n] -> [n]"""
    if feature.kind == "multi":
        as_text = pd.api.types.is_string_dtype(values)
        lists = values.str.split(feature.separator, regex=False) if as_text else values
        values = lists.str[0]
    texts = values.astype(object).where(values.notna(), "(none)").astype(str)
    return np.asarray(texts.to_numpy(dtype=object))


def principal(vectors: Doubles) -> tuple[Doubles, float]:
    """Vectors on the plane in which they vary most, and the share of their variance that it holds.
    [n, D] -> [n, 2]
    """
    centred = vectors - vectors.mean(0)
    values, axes = np.linalg.eigh(centred.T @ centred)  # [D], [D, D], ascending
    plane = axes[:, ::-1][:, :2]
    largest = np.abs(plane).argmax(0)
    plane = plane * np.sign(plane[largest, np.arange(plane.shape[1])])  # an axis has no sign
    return centred @ plane, float(values[-2:].sum() / max(values.sum(), 1e-12))


def item_columns(run: Run, columns: list[str]) -> pd.DataFrame | None:
    """Columns of the items table in the order of the index's rows: N rows.

    None where there is no such table or column.
    """
    file = run.step("validate_data") / table_file("items")
    held = pq.read_schema(file).names if file.is_file() else []
    names = [name for name in columns if name in held and name != ITEM]
    if not names:
        return None
    ids = Ids.load(run.step("export_embeddings") / ITEM_IDS_FILE)
    return pd.read_parquet(file, columns=[ITEM, *names]).set_index(ITEM).reindex(ids.index)


def describe_items(run: Run) -> tuple[npt.NDArray[Any], pd.DataFrame | None]:
    """The item ids of the index [N], and the first columns of the item features, [N] rows."""
    ids = Ids.load(run.step("export_embeddings") / ITEM_IDS_FILE)
    columns = [of.column for of in run.config.features.columns.item if of.kind != "vector"]
    distinct = list(dict.fromkeys(name for name in columns if name != ITEM))
    return ids.index.to_numpy(), item_columns(run, distinct[:COLUMNS_SHOWN])


def neighbours(vectors: Floats, items: Ints, count: int) -> tuple[Ints, Floats]:
    """The `count` nearest other items of some items, and their similarity. [n] -> 2 x [n, count]"""
    similarity = vectors[items] @ vectors.T  # [n, N]
    similarity[np.arange(len(items)), items] = -np.inf
    order = np.argsort(-similarity, axis=1, kind="stable")[:, :count]
    return order, np.take_along_axis(similarity, order, 1)


def spread(counts: Ints, count: int) -> Ints:
    """Items from the most clicked to the least, at even steps of the logarithm of their rank.

    Items without clicks are left out. [N] -> [count or fewer]
    """
    order = np.argsort(-counts, kind="stable")[: int((counts > 0).sum())]
    ranks = np.geomspace(1, max(len(order), 1), count).astype(np.int64)
    positions = np.unique(ranks) - 1
    return order[positions[positions < len(order)]]
