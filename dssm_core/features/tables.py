"""Static columns of users and items, and the context's: fitted on train once, coded the same way
for any rows since.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from torch.nn.functional import pad

from dssm_core.columns import ITEM, USER
from dssm_core.config import Feature, FeatureColumns, Features, too_large
from dssm_core.errors import ConfigError, DataError
from dssm_core.families import did_you_mean
from dssm_core.features.coding import (
    coder,
    fit_column,
    lists_of,
    read_scale,
    read_vector_scale,
    vector_column,
)
from dssm_core.features.ids import Codes, Hashed, Ids
from dssm_core.features.inputs import ColumnTable
from dssm_core.features.ordered_rows import OrderedRows
from dssm_core.features.ragged import positions
from dssm_core.features.schema import Column, Schema, TowerColumns
from dssm_core.features.trigrams import trigrams

SEVERAL = ("multi", "text")


def fit_table(
    settings: Features, side: str, rows: pd.DataFrame | OrderedRows | None, ids: Ids, work: Path
) -> tuple[ColumnTable, TowerColumns]:
    """Vocabularies and scales fitted on the train window's users or items, and their columns by
    code, the unknown first.

    side: `user` or `item`, items first: users may share their vocabularies. rows: the users or
    items table, if there is one, or its rows in the order of the ids.
    """
    columns = settings.columns
    features: tuple[Feature, ...] = getattr(columns, side)
    found = [_rows_of(features, side, rows, ids)] if not isinstance(rows, OrderedRows) else rows
    for feature in features:
        if feature.kind != "target_mean":
            fit_column(feature, side, _values(found, feature.column), work)
    table = _joined([encode_table(columns, side, part, work) for part in found])
    several = [feature for feature in features if feature.kind in SEVERAL]
    places = torch.arange(1, table.multi.shape[2] + 1)
    widths = [
        int(((table.multi[:, place] > 0) * places).max().clamp(min=1))
        for place in range(len(several))
    ]
    single = [
        _column(settings, side, feature, work)
        for feature in features
        if feature.kind == "categorical"
    ]
    lists = [
        _column(settings, side, feature, work, values)
        for feature, values in zip(several, widths, strict=True)
    ]
    means = sum(feature.kind == "target_mean" for feature in features)
    vectors = tuple(vector_column(side, feature, work) for feature in columns.vectors(side))
    return table, TowerColumns(
        categorical=tuple(single),
        multi=tuple(lists),
        numeric=table.numeric.shape[1] - sum(vector.width for vector in vectors) + means,
        vectors=vectors,
    )


def _values(found: list[pd.DataFrame] | OrderedRows, column: str) -> Iterable[pd.Series[Any]]:
    """The values of a column, a part at a time."""
    if isinstance(found, OrderedRows):
        return found.values(column)
    return (part[column] for part in found)


def encode_table(
    columns: FeatureColumns, side: str, rows: pd.DataFrame, folder: Path
) -> ColumnTable:
    """Rows [n] of a users or items table as towers take them, by what `fit_table` wrote into
    `folder`; also rows it never saw.

    Without target means, which are those of the train window's users and items.
    """
    features: tuple[Feature, ...] = getattr(columns, side)
    of = {
        kind: [feature for feature in features if feature.kind == kind]
        for kind in ("categorical", "numeric")
    }
    single = [
        coder(columns, side, feature, folder).encode(rows[feature.column])
        for feature in of["categorical"]
    ]
    several = [
        _several(columns, side, feature, rows[feature.column], folder)
        for feature in features
        if feature.kind in SEVERAL
    ]
    width = max((codes.shape[1] for codes in several), default=1)
    padded = [np.pad(codes, ((0, 0), (0, width - codes.shape[1]))) for codes in several]
    vectors = [
        read_vector_scale(folder, side, feature).apply(rows[feature.column], feature.column)
        for feature in columns.vectors(side)
    ]
    numeric = [
        read_scale(folder, side, feature).apply(rows[feature.column]) for feature in of["numeric"]
    ]
    numbers = [*vectors, _stacked(numeric, (len(rows), 0), np.float32)]
    return ColumnTable(
        torch.from_numpy(_stacked(single, (len(rows), 0), np.int64)),
        torch.from_numpy(_stacked(padded, (len(rows), 0, width), np.int64)),
        torch.from_numpy(np.concatenate(numbers, axis=1)),
    )


def _joined(parts: Sequence[ColumnTable]) -> ColumnTable:
    """The rows of several tables, after the unknown one. The widest multi-valued part decides."""
    width = max(part.multi.shape[2] for part in parts)
    multi = [pad(part.multi, (0, width - part.multi.shape[2])) for part in parts]
    return ColumnTable(
        _with_unknown([part.categorical for part in parts]),
        _with_unknown(multi),
        _with_unknown([part.numeric for part in parts]),
    )


def extend_table(
    table: ColumnTable,
    columns: FeatureColumns,
    side: str,
    rows: pd.DataFrame | None,
    ids: Ids,
    folder: Path,
) -> ColumnTable:
    """The table that `fit_table` made, with a row behind for each of `ids` (those that came since),
    coded by `folder`'s vocabularies.

    rows: the users or items table as it is now. A row has no more values of a multi-valued column
    than the widest in train; target means know nothing of it.
    """
    if len(ids) == 1:
        return table
    new = encode_table(columns, side, _rows_of(getattr(columns, side), side, rows, ids), folder)
    width = table.multi.shape[2]
    multi = pad(new.multi[:, :, :width], (0, max(0, width - new.multi.shape[2])))
    group = torch.cat(
        [table.means.group, table.means.group.new_zeros(len(ids) - 1, table.means.group.shape[1])]
    )
    return ColumnTable(
        torch.cat([table.categorical, new.categorical]),
        torch.cat([table.multi, multi]),
        torch.cat([table.numeric, new.numeric]),
        replace(table.means, group=group),
    )


def fit_context(
    settings: Features, values: Mapping[str, pd.Series[Any]], work: Path
) -> tuple[list[Codes], list[Column]]:
    """The codes of each context column's values, and their tables' sizes. values: distinct or all
    values of train, by column.
    """
    columns = settings.columns
    for feature in columns.context:
        fit_column(feature, "context", [values[feature.column]], work)
    codes = [
        coder(columns, "context", feature, work).encode(values[feature.column])
        for feature in columns.context
    ]
    return codes, [_column(settings, "context", feature, work) for feature in columns.context]


def encode_context(columns: FeatureColumns, rows: pd.DataFrame, folder: Path) -> Tensor:
    """Codes of context columns by the saved vocabularies; a column that is missing is unknown. →
    [n, columns].
    """
    codes = [
        coder(columns, "context", feature, folder).encode(rows[feature.column])
        if feature.column in rows
        else np.zeros(len(rows), dtype=np.int64)
        for feature in columns.context
    ]
    return torch.from_numpy(_stacked(codes, (len(rows), 0), np.int64))


def check_embedding_sizes(schema: Schema, features: Features) -> None:
    """ConfigError naming every embedding table that would not fit `features.max_embedding_gib`."""
    of = [
        *schema.user.categorical,
        *schema.user.multi,
        *schema.item.categorical,
        *schema.item.multi,
    ]
    tables = {(column.column, column.size, column.dim) for column in of if column.shares is None}
    known = schema.items if features.item_ids or schema.lends(ITEM) else 1  # as in TwoTower
    tables |= {(ITEM, known, features.id_dim), (USER, schema.users, features.user_id_dim)}
    if problems := too_large(sorted(tables), features.max_embedding_gib):
        raise ConfigError("\n".join(problems))


def _rows_of(
    features: tuple[Feature, ...], side: str, rows: pd.DataFrame | None, ids: Ids
) -> pd.DataFrame:
    """The table's rows in the order of the ids; ConfigError or DataError where it or columns of it
    are missing.
    """
    check_columns(features, side, None if rows is None else list(rows.columns))
    if rows is None:
        return pd.DataFrame(index=ids.index)
    return rows.set_index(f"{side}_id").reindex(ids.index)


def check_columns(
    features: tuple[Feature, ...], side: str, columns: Sequence[str] | None
) -> list[str]:
    """The columns of a users or items table that the features need. columns: those that it has, or
    None if there is no table. ConfigError or DataError where it or columns of it are missing.
    """
    needed = [feature.column for feature in features if feature.in_table]
    if needed and columns is None:
        raise ConfigError(
            f"features.columns.{side} names columns, but the source has no {side}s table: add"
            f" data.source.{side}s, or remove the columns"
        )
    missing = [
        f"the {side}s table has no column {column!r} that features.columns names:"
        f" {did_you_mean(column, list(columns or []))}"
        for column in needed
        if column not in (columns or [])
    ]
    if missing:
        raise DataError("\n".join(missing))
    return list(dict.fromkeys(needed))


def _column(settings: Features, side: str, feature: Feature, work: Path, values: int = 1) -> Column:
    """What the model must know of a column; a shared table has its owner's width."""
    lender = settings.columns.lender(feature) if feature.shares else None
    dim = settings.id_dim if feature.shares == ITEM else (lender or feature).dim
    size = len(coder(settings.columns, side, feature, work))
    return Column(
        column=feature.column,
        size=size,
        dim=dim,
        values=values,
        pooling=feature.pooling,
        shares=feature.shares,
    )


def _several(
    columns: FeatureColumns, side: str, feature: Feature, values: pd.Series[Any], folder: Path
) -> Codes:
    """[n, most values a row] codes of a multi-valued or text column, 0 where a row has fewer."""
    coding = coder(columns, side, feature, folder)
    if feature.kind == "text":
        assert isinstance(coding, Hashed)
        row, numbers = trigrams(values)
        codes = coding.encode_numbers(numbers)
    else:
        flat = lists_of(feature, values).explode().dropna()
        row, codes = flat.index.to_numpy(dtype=np.int64), coding.encode(flat)
    return _beside(row, codes, len(values), feature.most)


def _beside(row: Codes, codes: Codes, rows: int, most: int) -> Codes:
    """Codes [t] of rows [t] (ascending) side by side, the first `most` of each row. → [rows,
    longest], 0 after the end of a row.
    """
    counts = np.bincount(row, minlength=rows)
    position = positions(counts)
    used = position < most
    padded = np.zeros((rows, min(most, max(1, int(counts.max(initial=0))))), dtype=np.int64)
    padded[row[used], position[used]] = codes[used]
    return padded


def _with_unknown(parts: Sequence[Tensor]) -> Tensor:
    """Parts of rows [p, …] after one row of zeros. → [n + 1, …]."""
    return torch.cat([parts[0].new_zeros(1, *parts[0].shape[1:]), *parts])


def _stacked(columns: list[Any], empty: tuple[int, ...], kind: Any) -> Any:
    """Columns [n, …] side by side as [n, columns, …]."""
    return np.stack(columns, axis=1).astype(kind) if columns else np.zeros(empty, dtype=kind)
