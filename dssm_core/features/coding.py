"""How one feature column is coded: its vocabulary or scale, fitted on train, written and read."""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache
from hashlib import sha256
from pathlib import Path
from typing import Any

import pandas as pd

from dssm_core.columns import ITEM
from dssm_core.config import Feature, FeatureColumns
from dssm_core.features.ids import Coder, Codes, Hashed, Ids, as_text
from dssm_core.features.normalise import Normaliser, as_numbers
from dssm_core.features.schema import VectorColumn
from dssm_core.features.vectors import VectorScale
from dssm_core.runs.layout import ids_file

STORED_VOCABULARIES = 100  # that are kept in memory
FILE_NAME = re.compile(r"[^/\\%#?\x00-\x1f]+")
FILE_NAME_BYTES = 100  # a disk allows 255, of which the other parts of the name need some


def fit_column(feature: Feature, side: str, parts: Iterable[pd.Series[Any]], work: Path) -> None:
    """Write what a column's coding needs: a vocabulary or a scale; nothing for what is hashed or
    shared. parts: the values of train.
    """
    if feature.kind == "numeric":
        numbers = pd.concat([pd.Series(as_numbers(values)) for values in parts])
        scale = Normaliser.fit(feature.normaliser, numbers)
        _normaliser(work, side, feature).write_text(scale.model_dump_json())
    elif feature.kind == "vector":
        vectors = VectorScale.fit(feature.normaliser, feature.column, parts)
        _normaliser(work, side, feature).write_text(vectors.model_dump_json())
    elif not feature.rows and not feature.shares:
        distinct = pd.concat([_distinct(feature, values) for values in parts])
        _as_text(Ids.fit(distinct)).save(_vocabulary(work, side, feature), feature.column)


def _distinct(feature: Feature, values: pd.Series[Any]) -> pd.Series[Any]:
    """The distinct values of a column."""
    flat = lists_of(feature, values).explode() if feature.kind == "multi" else values
    return flat.drop_duplicates()


def coder(columns: FeatureColumns, side: str, feature: Feature, folder: Path) -> Coder:
    """What codes a column: the items' ids, the vocabulary of the column that it shares, its own, or
    hashing.
    """
    if feature.shares == ITEM:
        return _Texts(Ids.load(folder / ids_file(ITEM)))
    if lender := columns.lender(feature) if feature.shares else None:
        return coder(columns, "item", lender, folder)
    if feature.rows:
        return Hashed(feature.rows)
    file = _vocabulary(folder, side, feature)
    return _stored(file, file.stat().st_mtime_ns)


def _vocabulary(folder: Path, side: str, feature: Feature) -> Path:
    return folder / f"vocabulary.{side}.{_in_file_name(feature.column)}.parquet"


def _normaliser(folder: Path, side: str, feature: Feature) -> Path:
    return folder / f"normaliser.{side}.{_in_file_name(feature.column)}.json"


def _in_file_name(column: str) -> str:
    """A column's name, or its hash where disks or MLflow's artifacts refuse a file of its name."""
    data = column.encode()
    usable = FILE_NAME.fullmatch(column) and len(data) <= FILE_NAME_BYTES
    return column if usable else sha256(data).hexdigest()


def read_scale(folder: Path, side: str, feature: Feature) -> Normaliser:
    """The scale of a numeric column that `fit_column` wrote into `folder`."""
    return Normaliser.model_validate_json(_normaliser(folder, side, feature).read_bytes())


def read_vector_scale(folder: Path, side: str, feature: Feature) -> VectorScale:
    """The scale of a vector column that `fit_column` wrote into `folder`."""
    file = _normaliser(folder, side, feature)
    return _stored_vector_scale(file, file.stat().st_mtime_ns)


def vector_column(side: str, feature: Feature, folder: Path) -> VectorColumn:
    """What the model must know of a vector column."""
    width = read_vector_scale(folder, side, feature).width
    return VectorColumn(column=feature.column, width=width, dim=feature.dim)


@lru_cache(STORED_VOCABULARIES)
def _stored_vector_scale(file: Path, written_ns: int) -> VectorScale:
    """The scale in a file, with its mean vector. A server needs it for each request."""
    return VectorScale.model_validate_json(file.read_bytes())


def lists_of(feature: Feature, values: pd.Series[Any]) -> pd.Series[Any]:
    """The lists of values in the cells of a multi-valued column, without cells that are missing."""
    lists = values.reset_index(drop=True).dropna()
    return (
        lists.str.split(feature.separator, regex=False)
        if pd.api.types.is_string_dtype(lists)
        else lists
    )


class _Texts:
    """A vocabulary as text, for values of any type: 7, 7.0 and "7" are one, and a day is the text
    2024-03-01, as in a request.
    """

    def __init__(self, ids: Ids) -> None:
        self.ids = ids if pd.api.types.is_string_dtype(ids.index) else _as_text(ids)

    def __len__(self) -> int:
        return len(self.ids)

    def encode(self, values: Any) -> Codes:
        return self.ids.encode(as_text(values))


@lru_cache(STORED_VOCABULARIES)
def _stored(file: Path, written_ns: int) -> _Texts:
    """The vocabulary in a file. A server needs it for each request."""
    return _Texts(Ids.load(file))


def _as_text(ids: Ids) -> Ids:
    """A vocabulary with its values as text, in the same order."""
    return Ids(pd.Index(as_text(ids.index.to_series())).unique())
