"""The bundle: one folder with all that answers a user, so that towers, ids and index always match.

It holds config.json, the towers, the ids, the embeddings, the index, and the tables and
vocabularies that encode a user.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from dssm_core import families
from dssm_core.aliases import Bools, Floats, Ints
from dssm_core.columns import USER
from dssm_core.config import Config
from dssm_core.errors import ArtifactError
from dssm_core.families import INDEXES
from dssm_core.features.ids import Ids
from dssm_core.retrieval.indexes.protocol import Index
from dssm_core.retrieval.new_users import CONTEXT, HOT, HotList, answer_sources, open_hot_list
from dssm_core.retrieval.requests import (
    HISTORY,
    LISTS,
    MAX_K,
    as_ids,
    cast_ids,
    check_frame,
    check_k,
    check_rows,
)
from dssm_core.runs.files import digest, link, sha256
from dssm_core.runs.layout import CONFIG_FILE, ITEM_IDS_FILE, USER_EMBEDDINGS_FILE, USER_IDS_FILE
from dssm_core.runs.run import Run

STEPS = ("export_embeddings", "build_index")


@dataclass(frozen=True)
class QueryPlan:
    """How each row of a request is answered.

    codes: [B] user codes, 0 = unknown. has_history: [B], whether the row's history holds a known
    item. source: [B], what answers the row, see `answer_sources`.
    """

    codes: Ints
    has_history: Bools
    source: npt.NDArray[np.str_]


@dataclass(frozen=True)
class Bundle:
    """An opened bundle.

    users, items: the ids. The user of code r has row r of user_vectors [U + 1, D]; the item of code
    r has row r - 1 of the index.
    hot: the list that answers new users; None if the user tower answers them, see new_users.py.
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
        """The user tower with its features, loaded on first use: rows answered by an exported
        vector need no tower.
        """
        from dssm_core.retrieval.encoder import Encoder

        return Encoder(self.folder)

    def plan(self, frame: pd.DataFrame) -> QueryPlan:
        """How each row of `frame` [B] is answered. Raises DataError if a row is malformed."""
        check_frame(frame)
        features = self.config.features
        codes = np.zeros(len(frame), np.int64)
        if USER in frame:
            codes = self.users.encode(as_ids(frame[USER], self.users))
        has_history = self._has_known_history(frame)
        has_context = np.zeros(len(frame), np.bool_)
        if features.history.length == 0:
            has_context = self._has_known_context(frame)
        has_list = self.hot is not None
        source = answer_sources(features, codes > 0, has_history, has_context, has_list)
        return QueryPlan(codes, has_history, source)

    def vectors(self, frame: pd.DataFrame, plan: QueryPlan) -> Floats:
        """The query vector of each row. → [B, D].

        The tower embeds rows with a known history, and, if `frame` has context columns, rows that
        are answered by their context. All other rows get the exported vector of their code. Rows
        that the hot list answers do not use their vector.
        """
        vectors = np.array(self.user_vectors[plan.codes], dtype=np.float32)
        encoded = plan.has_history
        context_columns = [feature.column for feature in self.config.features.columns.context]
        if any(column in frame for column in context_columns):
            encoded = encoded | (plan.source == CONTEXT)
        if encoded.any():
            vectors[encoded] = self.encoder.users(self._encoder_input(frame[encoded]))
        return vectors

    def search(self, frame: pd.DataFrame, k: int) -> tuple[Ints, Floats]:
        """Item rows and scores from the served index, best first. → [B, min(k, N)] each.

        Missing results at the end have row -1 and score -inf. Raises DataError if a row is
        malformed, or k is below 1.
        """
        check_k(k)
        return self._search(frame, self.plan(frame), k)

    def retrieve(self, frame: pd.DataFrame, k: int) -> pd.DataFrame:
        """The k best items for each row of `frame`.

        Returns the columns `item_ids` and `scores`, lists of at most k, best first, and `source`,
        see `answer_sources`. A score is the similarity of the two towers' vectors; a score from the
        hot list is the item's share of the clicks. Raises DataError if `frame` has no rows, a row
        is malformed, or k is not from 1 to 10,000.
        """
        check_k(k, MAX_K)
        plan = self.plan(frame)
        check_rows(frame)
        rows, scores = self._search(frame, plan, k)
        present = rows >= 0
        ids = self.items.decode(np.where(present, rows, 0) + 1)
        lists = [
            (row_ids[mask].tolist(), row_scores[mask].tolist())
            for row_ids, row_scores, mask in zip(ids, scores, present, strict=True)
        ]
        answers = pd.DataFrame(lists, columns=["item_ids", "scores"], index=frame.index)
        return answers.assign(source=plan.source)

    def _search(self, frame: pd.DataFrame, plan: QueryPlan, k: int) -> tuple[Ints, Floats]:
        queries = self.vectors(frame, plan)
        rows, scores = self.member.search(self.index, queries, min(k, len(self.items) - 1))
        if self.hot is None:
            return rows, scores
        return self.hot.answer(plan.source == HOT, rows, scores)

    def _has_known_history(self, frame: pd.DataFrame) -> Bools:
        """Whether each row's history holds a known item. → [B]."""
        has_history = np.zeros(len(frame), np.bool_)
        if HISTORY in frame:
            flat = frame[HISTORY].reset_index(drop=True).explode().dropna()
            known = self.items.encode(as_ids(flat, self.items)) > 0
            has_history[flat.index.to_numpy()[known]] = True
        return has_history

    def _has_known_context(self, frame: pd.DataFrame) -> Bools:
        """Whether each row's context holds a known value. → [B]."""
        from dssm_core.features.tables import encode_context

        codes = encode_context(self.config.features.columns, frame, self.folder)
        return np.asarray((codes > 0).any(1).numpy(), dtype=np.bool_)

    def _encoder_input(self, frame: pd.DataFrame) -> pd.DataFrame:
        """The rows as `Encoder.users` takes them: ids in the vocabularies' types, histories as
        lists.
        """
        users = pd.Series([None] * len(frame), index=frame.index, dtype=object)
        if USER in frame:
            users = as_ids(frame[USER], self.users)
        cells = frame[HISTORY] if HISTORY in frame else [()] * len(frame)
        lists = [
            cast_ids(list(cell), self.items) if isinstance(cell, LISTS) else [] for cell in cells
        ]
        histories = pd.Series(lists, index=frame.index, dtype=object)
        return frame.assign(**{USER: users, HISTORY: histories}).reset_index(drop=True)


def assemble(run: Run, folder: Path) -> Path:
    """Link the served files of a run into a new folder, and return it.

    Raises ArtifactError if a step that writes served files is not finished.
    """
    shutil.rmtree(folder, ignore_errors=True)
    for step in STEPS:
        for name in run.need(step).files:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            link(run.step(step) / name, folder / name)
    # The settings of this run, even if its steps were reused from another run.
    link(run.root / CONFIG_FILE, folder / CONFIG_FILE)
    return folder


def content_hash(folder: Path) -> str:
    """sha256 over the names and contents of all files below a folder."""
    files = [file for file in sorted(folder.rglob("*")) if file.is_file()]
    return digest({str(file.relative_to(folder)): sha256(file) for file in files})


def open_bundle(folder: Path | str) -> Bundle:
    """Open a bundle; MLflow is not needed.

    Raises ArtifactError if a file is missing or damaged.
    """
    folder = Path(folder)
    try:
        config = Config.model_validate_json((folder / CONFIG_FILE).read_bytes())
        users = Ids.load(folder / USER_IDS_FILE)
        items = Ids.load(folder / ITEM_IDS_FILE)
        vectors: Floats = np.load(folder / USER_EMBEDDINGS_FILE, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError) as error:
        raise ArtifactError(
            f"bundle {folder} is incomplete or damaged: {error}. Register the model of the run"
            " again"
        ) from error
    member: Index = families.build(INDEXES, config.index)
    index = member.load(folder)
    if len(vectors) != len(users):
        raise ArtifactError(
            f"bundle {folder} has {len(vectors)} user vectors for {len(users)} codes. Register the"
            " model of the run again"
        )
    return Bundle(folder, config, users, items, vectors, member, index, open_hot_list(folder))
