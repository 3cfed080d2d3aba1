"""The bundle: one folder with all that answers a user, so that towers, ids and index can never drift apart.

config.json, towers.safetensors, the ids, the embeddings, the index, and the tables the encoder needs.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from dssm_core import families
from dssm_core.artifacts import Run, digest, link, sha256
from dssm_core.config import Config
from dssm_core.errors import ArtifactError, DataError
from dssm_core.ids import Ids
from dssm_core.indexes import INDEXES
from dssm_core.indexes.protocol import Floats, Index, Rows
from dssm_core.schema import ITEM, USER

HISTORY = "history"
STEPS = ("export_embeddings", "build_index")


@dataclass(frozen=True)
class Bundle:
    """An opened bundle. users / items: ids whose code r is row r of user_vectors [U+1, D] and row r-1 of the index."""

    folder: Path
    config: Config
    users: Ids
    items: Ids
    user_vectors: Floats
    member: Index
    index: Any

    @cached_property
    def encoder(self) -> Any:
        """The user tower with its features; read only once someone brings a history."""
        from dssm_core.encoder import Encoder

        return Encoder(self.folder)

    def vectors(self, frame: pd.DataFrame) -> Floats:
        """A query vector a row: from the history where there is one, else as exported, else the unknown user's. [B, D]"""
        check_frame(frame)
        rows = self.users.encode(as_ids(frame[USER], self.users)) if USER in frame else np.zeros(len(frame), np.int64)
        vectors = np.array(self.user_vectors[rows], dtype=np.float32)
        if HISTORY in frame:
            told = frame[HISTORY].map(_length).to_numpy(dtype=np.int64) > 0
            if told.any():
                vectors[told] = self.encoder.users(self._inputs(frame[told]))
        return vectors

    def search(self, frame: pd.DataFrame, k: int) -> tuple[Rows, Floats]:
        """Item rows and scores [B, k] from the served index, best first; row -1, score -inf where there are no more."""
        check_k(k)
        return self.member.search(self.index, self.vectors(frame), k)

    def retrieve(self, frame: pd.DataFrame, k: int) -> pd.DataFrame:
        """Columns `item_ids` and `scores`: for each row of `frame` two lists of at most k, best first."""
        rows, scores = self.search(frame, k)
        held = rows >= 0
        ids = self.items.decode(np.where(held, rows, 0) + 1)
        lists = [(i[h].tolist(), s[h].tolist()) for i, s, h in zip(ids, scores, held, strict=True)]
        return pd.DataFrame(lists, columns=["item_ids", "scores"], index=frame.index)

    def _inputs(self, frame: pd.DataFrame) -> pd.DataFrame:
        """What the encoder takes: ids in the type of the training log, histories as lists, newest last."""
        users = as_ids(frame[USER], self.users) if USER in frame else pd.Series([None] * len(frame), index=frame.index, dtype=object)
        histories = pd.Series([_cast(list(cell), self.items) for cell in frame[HISTORY]], index=frame.index, dtype=object)
        return frame.assign(**{USER: users, HISTORY: histories}).reset_index(drop=True)


def assemble(run: Run, folder: Path) -> Path:
    """Link a run's served files into a new folder and return it; ArtifactError where a step is not finished."""
    shutil.rmtree(folder, ignore_errors=True)
    for step in STEPS:
        for name in run.need(step).files:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            link(run.step(step) / name, folder / name)
    link(run.root / "config.json", folder / "config.json")  # this run's own, also where a step was reused from another
    return folder


def content_hash(folder: Path) -> str:
    """sha256 over the names and contents of all files below a folder."""
    return digest({str(file.relative_to(folder)): sha256(file) for file in sorted(folder.rglob("*")) if file.is_file()})


def open_bundle(folder: Path | str) -> Bundle:
    """Open a bundle without MLflow; ArtifactError names the file that is missing or damaged."""
    folder = Path(folder)
    try:
        config = Config.model_validate_json((folder / "config.json").read_bytes())
        users, items = Ids.load(folder / "user_ids.parquet"), Ids.load(folder / "item_ids.parquet")
        vectors: Floats = np.load(folder / "user_embeddings.npy", mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError) as error:
        raise ArtifactError(f"{folder} is not a whole bundle: {error}; register the run's model again") from error
    member: Index = families.build(INDEXES, config.index)
    bundle = Bundle(folder, config, users, items, vectors, member, member.load(folder))
    if len(vectors) != len(users):
        raise ArtifactError(f"{folder}: {len(vectors)} user vectors for {len(users)} codes; register the run's model again")
    return bundle


def check_frame(frame: pd.DataFrame) -> None:
    """DataError unless the frame says who asks."""
    if USER not in frame and HISTORY not in frame:
        raise DataError(f"input has columns {list(frame.columns)}: give {USER!r}, {HISTORY!r} (a list of {ITEM}, newest last) or both")


def check_k(k: Any) -> None:
    """DataError unless k is a whole number of 1 or more."""
    if isinstance(k, bool) or not isinstance(k, int | np.integer) or k < 1:
        raise DataError(f"k is {k!r}: ask for a whole number of items, 1 or more")


def as_ids(values: pd.Series[Any], ids: Ids) -> pd.Series[Any]:
    """Ids in the vocabulary's own type: '7' finds 7 and 7 finds '7'; what cannot be converted is unknown."""
    return pd.Series(_cast(values.tolist(), ids), index=values.index, dtype=object)


def _cast(values: list[Any], ids: Ids) -> list[Any]:
    if pd.api.types.is_integer_dtype(ids.index.dtype):
        return [_whole(value) for value in values]
    return [value if value is None or isinstance(value, str) else str(value) for value in values]


def _whole(value: Any) -> int | None:
    try:
        return int(value)
    except (TypeError, ValueError):
        return None


def _length(cell: Any) -> int:
    if isinstance(cell, str):
        raise DataError(f"history {cell!r} is text: give a list of {ITEM}, newest last")
    return len(cell) if isinstance(cell, list | tuple | np.ndarray) else 0
