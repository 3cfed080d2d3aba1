"""The columns of the items in a bundle, and which items a request may list by them.

`item_columns.parquet` has a row for each item of the index, in its order.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq

from dssm_core.aliases import Bools
from dssm_core.columns import AVAILABLE_FROM, AVAILABLE_UNTIL, CREATED, ITEM
from dssm_core.config import Config
from dssm_core.config.conditions import Condition
from dssm_core.errors import DataError
from dssm_core.families import did_you_mean
from dssm_core.features.ids import Ids
from dssm_core.retrieval.item_filters import items_that_meet
from dssm_core.runs.layout import ITEM_COLUMNS_FILE

log = logging.getLogger(__name__)

KEPT_MASKS = 16  # of recent requests: [N] bytes each
ALWAYS = (CREATED, AVAILABLE_FROM, AVAILABLE_UNTIL)


@dataclass(frozen=True)
class Catalogue:
    """Items and their columns. columns: by name, [N] each."""

    n_items: int
    columns: dict[str, pd.Series[Any]]

    @cached_property
    def _masks(self) -> Any:
        """`_mask`, with the masks of recent requests."""
        return lru_cache(KEPT_MASKS)(self._mask)

    def allowed(self, filters: Sequence[str], as_of_ms: int | None) -> Bools | None:
        """The items that are available at a time (None: at any) and meet all conditions. → [N];
        None for all.

        Raises DataError if a filter is not a condition on the columns.
        """
        moment = as_of_ms if self.timed else None
        if not filters and moment is None:
            return None
        mask: Bools = self._masks(tuple(filters), moment)
        return mask

    def first(self, n_items: int) -> Catalogue:
        """The catalogue of the first items."""
        return Catalogue(n_items, {name: part[:n_items] for name, part in self.columns.items()})

    def save(self, folder: Path) -> None:
        """Write the columns into a folder of exported embeddings or a bundle."""
        frame = pd.DataFrame(self.columns, index=range(self.n_items))
        frame.to_parquet(folder / ITEM_COLUMNS_FILE, index=False)

    @property
    def timed(self) -> bool:
        """Whether items are available at some times only."""
        return AVAILABLE_FROM in self.columns or AVAILABLE_UNTIL in self.columns

    def _mask(self, filters: tuple[str, ...], as_of_ms: int | None) -> Bools:
        mask = np.ones(self.n_items, dtype=np.bool_)
        if as_of_ms is not None:
            mask &= available(self.columns, self.n_items, as_of_ms)
        for text in filters:
            mask &= items_that_meet(Condition(text), self.columns)
        mask.setflags(write=False)  # later requests get the same array
        return mask


def available(columns: dict[str, pd.Series[Any]], n_items: int, as_of_ms: int) -> Bools:
    """Which items are available at a time: available_from <= time < available_until. → [N]

    An item without one of these times has no such limit.
    """
    mask = np.ones(n_items, dtype=np.bool_)
    if AVAILABLE_FROM in columns:
        mask &= ~(columns[AVAILABLE_FROM] > as_of_ms).to_numpy()
    if AVAILABLE_UNTIL in columns:
        mask &= ~(columns[AVAILABLE_UNTIL] <= as_of_ms).to_numpy()
    return mask


def check_enough(allowed: Bools | None, longest: int) -> None:
    """Warn if the longest list of the evaluation is longer than the number of items that may be
    listed. allowed: [N]. Raises DataError if there is none.
    """
    if allowed is None or allowed.sum() >= longest:
        return
    why = f"as of the cutoff ({AVAILABLE_FROM}, {AVAILABLE_UNTIL}, serving.filters)"
    if not allowed.any():
        raise DataError(
            f"none of the {len(allowed)} items may be listed {why}: check the times of the items"
            " table and the filters"
        )
    log.warning(
        "only %d of the %d items may be listed %s, so lists of %d items are short",
        allowed.sum(),
        len(allowed),
        why,
        longest,
    )


def column_names(config: Config, present: Iterable[str]) -> list[str]:
    """The columns of an items table that requests can filter by: those of the features, the times,
    and serving.columns.

    present: the columns of the table. Raises DataError if it lacks one of serving.columns.
    """
    present = list(present)
    features = (
        feature.column
        for feature in config.features.columns.item
        if feature.column != ITEM and feature.kind != "vector"
    )
    names = dict.fromkeys([*ALWAYS, *features, *config.serving.columns])
    missing = [name for name in config.serving.columns if name not in present]
    if missing:
        raise DataError(
            f"the items table has no column {missing[0]!r}, which serving.columns names:"
            f" {did_you_mean(missing[0], present)}"
        )
    return [name for name in names if name in present]


def read_items(file: Path, config: Config) -> pd.DataFrame | None:
    """The ids and the columns of an items table that a catalogue needs, which are not its vectors;
    None if there is no such file.
    """
    if not file.is_file():
        return None
    names = column_names(config, pq.read_schema(file).names)
    rows: pd.DataFrame = pq.read_table(file, columns=[ITEM, *names], partitioning=None).to_pandas()
    return rows


def make_catalogue(rows: pd.DataFrame | None, ids: Ids, config: Config) -> Catalogue:
    """The catalogue of the items `ids`, with their columns from an items table.

    A multi-valued column holds lists, so that `'a' in tags` is true of `a|b`.
    """
    if rows is None:
        rows = pd.DataFrame({ITEM: []})
    names = column_names(config, rows.columns)
    table = rows.set_index(ITEM)[names].reindex(ids.index).reset_index(drop=True)
    for feature in config.features.columns.item:
        if feature.kind == "multi" and pd.api.types.is_string_dtype(table[feature.column]):
            table[feature.column] = table[feature.column].str.split(feature.separator, regex=False)
    return Catalogue(len(ids.index), {name: table[name] for name in names})


def open_catalogue(folder: Path, n_items: int) -> Catalogue:
    """The catalogue of a bundle; without columns if the bundle was written without them."""
    file = folder / ITEM_COLUMNS_FILE
    if not file.is_file():
        return Catalogue(n_items, {})
    frame = pq.read_table(file, partitioning=None).to_pandas()
    return Catalogue(n_items, {str(name): frame[name] for name in frame})
