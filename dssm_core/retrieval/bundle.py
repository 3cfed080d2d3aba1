"""The bundle: one folder with all that answers a user, so that towers, ids and index can never
drift apart.

config.json, towers.safetensors, the ids, the embeddings, the index, and the tables the encoder
needs.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from dssm_core import families
from dssm_core.aliases import Bools, Floats, Ints
from dssm_core.columns import ITEM, USER
from dssm_core.config import Config
from dssm_core.errors import ArtifactError, DataError
from dssm_core.families import INDEXES
from dssm_core.features.ids import Ids
from dssm_core.retrieval.indexes.protocol import Index
from dssm_core.retrieval.new_users import CONTEXT, HOT, HotList, open_hot_list, sources
from dssm_core.runs.files import digest, link, sha256
from dssm_core.runs.layout import CONFIG_FILE, ITEM_IDS_FILE, USER_EMBEDDINGS_FILE, USER_IDS_FILE
from dssm_core.runs.run import Run

HISTORY = "history"
STEPS = ("export_embeddings", "build_index")
LISTS = (list, tuple, np.ndarray)
MAX_K = 10_000  # of one answer: more would be held in memory for each row that asks


@dataclass(frozen=True)
class QueryPlan:
    """Ints of a question. codes [B]: users, 0 unknown; told [B]: whose history holds a known item;
    source [B]: see newcomers.sources.
    """

    codes: Ints
    told: Bools
    source: npt.NDArray[np.str_]


@dataclass(frozen=True)
class Bundle:
    """An opened bundle. users / items: ids whose code r is row r of user_vectors [U+1, D] and row
    r-1 of the index.

    hot: what newcomers get where the tower has not learned what to make of them (None: it has), see
    new_users.py.
    """

    folder: Path
    config: Config
    users: Ids
    items: Ids
    user_vectors: Floats
    member: Index
    index: Any
    hot: HotList | None = None

    @cached_property
    def encoder(self) -> Any:
        """The user tower with its features; read only once someone brings a history or a newcomer a
        context.
        """
        from dssm_core.retrieval.encoder import Encoder

        return Encoder(self.folder)

    def plan(self, frame: pd.DataFrame) -> QueryPlan:
        """Who asks, and where each answer is to come from."""
        check_frame(frame)
        codes = (
            self.users.encode(as_ids(frame[USER], self.users))
            if USER in frame
            else np.zeros(len(frame), np.int64)
        )
        told, features = self._told(frame), self.config.features
        context = (
            self._tells_context(frame)
            if features.history.length == 0
            else np.zeros(len(frame), np.bool_)
        )
        return QueryPlan(
            codes, told, sources(features, codes > 0, told, context, self.hot is not None)
        )

    def vectors(self, frame: pd.DataFrame, asked: QueryPlan) -> Floats:
        """A query vector a row: from the history where some of it is known, else as exported, else
        the unknown user's. [B, D]

        The unknown user's is that of the row's context, where context columns are given; of a row
        that `hot` answers it is not used.
        """
        vectors = np.array(self.user_vectors[asked.codes], dtype=np.float32)
        encoded = asked.told
        if any(feature.column in frame for feature in self.config.features.columns.context):
            encoded = encoded | (asked.source == CONTEXT)
        if encoded.any():
            vectors[encoded] = self.encoder.users(self._inputs(frame[encoded]))
        return vectors

    def search(self, frame: pd.DataFrame, k: int) -> tuple[Ints, Floats]:
        """Item rows and scores [B, min(k, N)] from the served index, best first; row -1, score -inf
        where there are no more.
        """
        check_k(k)
        return self._search(frame, self.plan(frame), k)

    def retrieve(self, frame: pd.DataFrame, k: int) -> pd.DataFrame:
        """Columns `item_ids` and `scores`, for each row of `frame` two lists of at most k, best
        first, and `source`, see newcomers.

        Scores are the towers' similarity, those of `hot` shares of clicks. DataError where nobody
        asks, or on a k above 10,000.
        """
        check_k(k, MAX_K)
        asked = self.plan(frame)
        if frame.empty:
            raise DataError(
                f"input has no rows: give one for each user who asks, with {USER!r}, {HISTORY!r} or both"
            )
        rows, scores = self._search(frame, asked, k)
        held = rows >= 0
        ids = self.items.decode(np.where(held, rows, 0) + 1)
        lists = [(i[h].tolist(), s[h].tolist()) for i, s, h in zip(ids, scores, held, strict=True)]
        return pd.DataFrame(lists, columns=["item_ids", "scores"], index=frame.index).assign(
            source=asked.source
        )

    def _search(self, frame: pd.DataFrame, asked: QueryPlan, k: int) -> tuple[Ints, Floats]:
        found = self.member.search(
            self.index, self.vectors(frame, asked), min(k, len(self.items) - 1)
        )
        return self.hot.answer(asked.source == HOT, *found) if self.hot else found

    def _told(self, frame: pd.DataFrame) -> Bools:
        """Who brings a history of which some item is known. [B]"""
        told = np.zeros(len(frame), np.bool_)
        if HISTORY in frame:
            flat = frame[HISTORY].reset_index(drop=True).explode().dropna()
            told[flat.index.to_numpy()[self.items.encode(as_ids(flat, self.items)) > 0]] = True
        return told

    def _tells_context(self, frame: pd.DataFrame) -> Bools:
        """Who brings a context of which something is known. [B]"""
        from dssm_core.features.tables import encode_context

        codes = encode_context(self.config.features.columns, frame, self.folder)
        return np.asarray((codes > 0).any(1).numpy(), dtype=np.bool_)

    def _inputs(self, frame: pd.DataFrame) -> pd.DataFrame:
        """What the encoder takes: ids in the type of the training log, histories as lists, newest
        last.
        """
        users = (
            as_ids(frame[USER], self.users)
            if USER in frame
            else pd.Series([None] * len(frame), index=frame.index, dtype=object)
        )
        cells = frame[HISTORY] if HISTORY in frame else [()] * len(frame)
        lists = [_cast(list(cell), self.items) if isinstance(cell, LISTS) else [] for cell in cells]
        histories = pd.Series(lists, index=frame.index, dtype=object)
        return frame.assign(**{USER: users, HISTORY: histories}).reset_index(drop=True)


def assemble(run: Run, folder: Path) -> Path:
    """Link a run's served files into a new folder and return it; ArtifactError where a step is not
    finished.
    """
    shutil.rmtree(folder, ignore_errors=True)
    for step in STEPS:
        for name in run.need(step).files:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            link(run.step(step) / name, folder / name)
    link(
        run.root / CONFIG_FILE, folder / CONFIG_FILE
    )  # this run's own, also where a step was reused from another
    return folder


def content_hash(folder: Path) -> str:
    """sha256 over the names and contents of all files below a folder."""
    return digest(
        {
            str(file.relative_to(folder)): sha256(file)
            for file in sorted(folder.rglob("*"))
            if file.is_file()
        }
    )


def open_bundle(folder: Path | str) -> Bundle:
    """Open a bundle without MLflow; ArtifactError names the file that is missing or damaged."""
    folder = Path(folder)
    try:
        config = Config.model_validate_json((folder / CONFIG_FILE).read_bytes())
        users, items = Ids.load(folder / USER_IDS_FILE), Ids.load(folder / ITEM_IDS_FILE)
        vectors: Floats = np.load(folder / USER_EMBEDDINGS_FILE, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError) as error:
        raise ArtifactError(
            f"{folder} is not a whole bundle: {error}; register the run's model again"
        ) from error
    member: Index = families.build(INDEXES, config.index)
    bundle = Bundle(
        folder, config, users, items, vectors, member, member.load(folder), open_hot_list(folder)
    )
    if len(vectors) != len(users):
        raise ArtifactError(
            f"{folder}: {len(vectors)} user vectors for {len(users)} codes; register the run's model again"
        )
    return bundle


def check_frame(frame: pd.DataFrame) -> None:
    """DataError unless the frame says who asks: one id a row, histories as lists."""
    if USER not in frame and HISTORY not in frame:
        raise DataError(
            f"input has neither {USER!r} nor {HISTORY!r} but columns {list(frame.columns)}:"
            f" give {USER!r}, {HISTORY!r} (a list of {ITEM}, newest last) or both"
        )
    if several := [cell for cell in frame.get(USER, ()) if isinstance(cell, (*LISTS, dict))]:
        raise DataError(
            f"{USER} {several[0]!r} is no id: give one a row (to a server as dataframe_records or dataframe_split)"
        )
    check_histories(frame.get(HISTORY, ()))


def check_k(k: Any, most: int | None = None) -> None:
    """DataError unless k is a whole number of 1 or more (and at most `most`)."""
    if isinstance(k, bool) or not isinstance(k, int | np.integer) or k < 1 or (most and k > most):
        raise DataError(
            f"k is {k!r}: ask for a whole number of items, 1 {f'to {most:,}' if most else 'or more'}"
        )


def check_histories(cells: Iterable[Any]) -> None:
    """DataError naming the first history that is neither a list nor missing."""
    wrong = [cell for cell in cells if not isinstance(cell, LISTS) and not pd.isna(cell)]
    if wrong:
        kind = "text" if isinstance(wrong[0], str) else f"of type {type(wrong[0]).__name__}"
        raise DataError(f"history {wrong[0]!r} is {kind}: give a list of {ITEM}, newest last")


def as_ids(values: pd.Series[Any], ids: Ids) -> pd.Series[Any]:
    """Ids in the vocabulary's own type: '7' finds 7 and 7 finds '7'; what cannot be converted is
    unknown.
    """
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
