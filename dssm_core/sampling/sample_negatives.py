"""The step `sample_negatives`: the coded dataset, and the tables that negatives are drawn from.

Ids, vocabularies and scales are fitted on the train part only.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq
import torch
from torch import Tensor

from dssm_core.columns import AVAILABLE_FROM, AVAILABLE_UNTIL, CREATED, HISTORIES, ITEM, USER
from dssm_core.config import Config, Feature, Features
from dssm_core.data.database import connect
from dssm_core.errors import DataError
from dssm_core.features.activity import activity
from dssm_core.features.dataset import bucket_times
from dssm_core.features.ids import Ids
from dssm_core.features.inputs import ColumnTable
from dssm_core.features.interactions import Interactions
from dssm_core.features.schema import Column, Schema, TowerColumns
from dssm_core.features.tables import check_embedding_sizes, fit_table
from dssm_core.features.target_mean import TargetMeans, fit_target_means
from dssm_core.features.tensors import as_named, save_tensors
from dssm_core.features.vectors import rows_without_vector
from dssm_core.runs.files import scratch
from dssm_core.runs.layout import (
    SAMPLER_FILE,
    SCHEMA_FILE,
    TABLES_FILE,
    TRAIN_FILE,
    ids_file,
    table_file,
)
from dssm_core.runs.manifest import Outcome
from dssm_core.runs.memory import planned
from dssm_core.runs.run import Run
from dssm_core.sampling.coded_log import (
    check_memory,
    code_context,
    fit_ids,
    open_train,
    order_rows,
    unlisted,
    write_log,
)
from dssm_core.sampling.sampler_tables import drawn_from, fit_sampler_tables, samplers_of

SCALE_PAIRS = 100_000  # (item, refresh) pairs in the mean and deviation of the activity


def sample_negatives(run: Run, work: Path) -> Outcome:
    """Step function. Write ids, vocabularies, the coded log of positives and the sampler tables."""
    config = run.config
    features = config.features
    split = run.need("split_by_time")
    window = (split.info["start_ms"], split.info["cutoff_ms"])
    train = run.step("split_by_time") / TRAIN_FILE
    files = {side: _table(run, f"{side}s") for side in ("user", "item")}
    catalogue = files["item"] if features.catalogue == "table" else None
    histories = run.step("ingest_data") / table_file(HISTORIES)
    memory = planned(config.resources)
    with connect(work, config.resources) as con, scratch(work.parent) as folder:
        open_train(con, train, catalogue, histories if histories.is_file() else None)
        ids = fit_ids(con, catalogue, features.item_ids)
        check_memory(config.resources, ids)
        for column, vocabulary in ids.items():
            vocabulary.save(work / ids_file(column), column, lookup=True)
        tables: dict[str, ColumnTable] = {}
        columns: dict[str, TowerColumns] = {}
        for side in ("item", "user"):
            table = order_rows(con, features, side, files[side], Path(folder), memory)
            tables[side], columns[side] = fit_table(features, side, table, ids[f"{side}_id"], work)
        context_columns = code_context(con, features, work, Path(folder))
        times = _read(files["item"], [ITEM, CREATED, AVAILABLE_FROM, AVAILABLE_UNTIL])
        weight = config.data.weight
        log = write_log(con, features, ids, times, window, work, Path(folder), memory, weight)
        left_out = unlisted(con, len(log.item))
    if not len(log.item):
        raise DataError(
            f"none of {left_out:,} positives of train has an item of the items table, which is the"
            " catalogue: add the items to the table, or set features.catalogue: positives"
        )
    means = {side: _means(config, side, files[side], ids, train, window) for side in tables}
    users = replace(tables["user"], means=means["user"])
    items = replace(tables["item"], means=means["item"])
    scale = _activity_scale(log, config)
    sizes = (_trained_items(features, log), len(ids[USER]))
    schema = _schema(config, sizes, columns["user"], columns["item"], context_columns, scale)
    check_embedding_sizes(schema, features)
    coded = {**as_named("users", users), **as_named("items", items), "scale": scale}
    save_tensors(work / TABLES_FILE, coded)
    (work / SCHEMA_FILE).write_text(schema.model_dump_json(indent=2))
    # The other items of the catalogue would be negatives only, and the unknown id a bad sign.
    drawn = {**ids, ITEM: ids[ITEM].first(schema.items)}
    tables_of_samplers = fit_sampler_tables(config, log.of_items(schema.items), drawn)
    save_tensors(work / SAMPLER_FILE, tables_of_samplers)
    rows = {
        "positives": len(log.item),
        "users": len(ids[USER].index),
        "items": len(ids[ITEM].index),
    }
    if len(log.prior):  # items of histories from before the log
        rows["prior_items"] = len(log.prior)
    if left_out:  # positives of items that are not in the items table, the catalogue
        rows["unlisted"] = left_out
    for side, part in (("user", users), ("item", items)):
        if missing := rows_without_vector(part.numeric[1:], columns[side]):
            rows[f"{side}s_without_vector"] = missing
    info = {"sampler": config.sampler.kind, "refreshes": len(bucket_times(config, log))}
    if sources := drawn_from(config, log, tables_of_samplers):
        info["drawn_from"] = sources
    return Outcome(rows, info)


def _table(run: Run, name: str) -> Path | None:
    """The file of a validated table, None if the source has none."""
    file = run.step("validate_data") / table_file(name)
    return file if file.is_file() else None


def _read(table: Path | None, columns: Sequence[str]) -> pd.DataFrame | None:
    """Those of the columns that a table has; None if there is no table."""
    if table is None:
        return None
    held = set(pq.read_schema(table).names)
    return pd.read_parquet(table, columns=[name for name in dict.fromkeys(columns) if name in held])


def _means(
    config: Config,
    side: str,
    table: Path | None,
    ids: Mapping[str, Ids],
    train: Path,
    window: tuple[int, int],
) -> TargetMeans:
    """The target means of users or items (`side`)."""
    features: tuple[Feature, ...] = getattr(config.features.columns, side)
    chosen = tuple(feature for feature in features if feature.kind == "target_mean")
    if not chosen:
        return TargetMeans.none()
    key = f"{side}_id"
    rows = _read(table, [key, *(feature.column for feature in chosen)])
    return fit_target_means(chosen, side, rows, ids[key], train, window)


def _activity_scale(log: Interactions, config: Config) -> Tensor:
    """Mean and standard deviation of item activity over an even sample of items and refreshes. →
    [2, columns], without columns if activity is off.
    """
    if not config.features.activity.enabled:
        return torch.zeros(2, 0)
    times = bucket_times(config, log)
    n_items = len(log.created) - 1
    n_pairs = n_items * len(times)
    pairs = torch.linspace(0, n_pairs - 1, min(SCALE_PAIRS, n_pairs)).long()
    windows_h = config.features.activity.windows_h
    raw = activity(log, pairs % n_items + 1, times[pairs // n_items], windows_h)
    return torch.stack([raw.mean(0), raw.std(0).clamp(min=1e-3)])


def _trained_items(features: Features, log: Interactions) -> int:
    """Number of item codes with an id embedding, code 0 included: those of the positives, which
    come first (see `fit_ids`). Without item ids only columns distinguish items.
    """
    return int(log.item.max()) + 1 if features.item_ids else len(log.created)


def _schema(
    config: Config,
    sizes: tuple[int, int],
    user: TowerColumns,
    item: TowerColumns,
    context: list[Column],
    scale: Tensor,
) -> Schema:
    """The columns of both towers. The item tower also gets the audience (the contexts of an item's
    latest clicks) and the activity. sizes: of items and users, as in `Schema`.
    """
    latest = config.features.activity.audience if config.features.activity.enabled else 0
    audience = []
    if latest:
        audience = [column.model_copy(update={"values": latest}) for column in context]
    return Schema(
        items=sizes[0],
        users=sizes[1],
        user=TowerColumns(
            categorical=(*user.categorical, *context),
            multi=user.multi,
            numeric=user.numeric + 1,
            vectors=user.vectors,
        ),
        item=TowerColumns(
            categorical=item.categorical,
            multi=(*item.multi, *audience),
            numeric=item.numeric + scale.shape[1],
            vectors=item.vectors,
        ),
    )


def sampler_files(run: Run) -> dict[str, Path]:
    """The files that samplers read beside the log, such as a previous model's vectors, by path."""
    files = [
        file for sampler in samplers_of(run.config).values() for file in sampler.files().values()
    ]
    return {str(file): file for file in files}
