"""The bundle: one folder with all that answers a user, so that towers, ids and index always match.

It holds config.json, the towers, the ids, the embeddings, the index, and the tables and
vocabularies that encode a user.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, reduce
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from dssm_core import families
from dssm_core.aliases import Bools, Floats, Texts
from dssm_core.columns import USER
from dssm_core.config import Config
from dssm_core.data.splits.days import cutoff_ms
from dssm_core.errors import ArtifactError, DataError
from dssm_core.families import INDEXES
from dssm_core.features.histories import Histories
from dssm_core.features.ids import Ids
from dssm_core.features.schema import Schema
from dssm_core.features.tables import encode_context
from dssm_core.retrieval.catalogue import Catalogue, open_catalogue
from dssm_core.retrieval.eligible import Eligible, Lists
from dssm_core.retrieval.encoder import Encoder, described
from dssm_core.retrieval.indexes.protocol import Index
from dssm_core.retrieval.item_index import ItemIndex, open_item_index
from dssm_core.retrieval.new_users import CONTEXT, HOT, HotList, answer_sources, open_hot_list
from dssm_core.retrieval.new_users import HISTORY as HISTORY_SOURCE
from dssm_core.retrieval.requests import (
    HISTORY,
    MAX_K,
    Queries,
    Rules,
    check_columns,
    check_k,
    check_size,
    column_names,
    count_ids,
    read_queries,
)
from dssm_core.retrieval.seen_items import SeenItems
from dssm_core.runs.files import digest, hashes, link
from dssm_core.runs.layout import (
    CONFIG_FILE,
    ITEM_EMBEDDINGS_FILE,
    ITEM_IDS_FILE,
    SCHEMA_FILE,
    USER_EMBEDDINGS_FILE,
    USER_IDS_FILE,
)
from dssm_core.runs.run import Run

STEPS = ("export_embeddings", "build_index")
ANSWER = pd.Index(["item_ids", "scores", "source"], dtype=object)  # columns of `Bundle.retrieve`


@dataclass(frozen=True)
class Bundle:
    """An opened bundle.

    users, items: the ids. The user of code r has row r of user_vectors [U + 1, D]; the item of code
    r has row r - 1 of the index.
    hot: the list that answers new users; None if the user tower answers them, see new_users.py.
    seen: what users have seen; None if the bundle was written without it.
    """

    folder: Path
    config: Config
    users: Ids
    items: Ids
    user_vectors: Floats
    index: ItemIndex
    catalogue: Catalogue
    hot: HotList | None = None
    seen: SeenItems | None = None

    @cached_property
    def encoder(self) -> Encoder:
        """The user tower with its features, loaded on first use: rows answered by an exported
        vector need no tower.
        """
        return Encoder(self.folder)

    @cached_property
    def trained_items(self) -> int:
        """The item codes below it have a trained id, and count in histories."""
        return Schema.model_validate_json((self.folder / SCHEMA_FILE).read_bytes()).items

    def try_out(self) -> None:
        """Answer a known user, a new user and a history, which needs every file of the bundle.

        The first request of a client is then as fast as the next. Raises what damaged files raise.
        """
        user, item = (ids.decode(np.array([1])).tolist() for ids in (self.users, self.items))
        self.retrieve(pd.DataFrame({USER: user}), 1)
        self.retrieve(pd.DataFrame({HISTORY: [[], item]}), 1)

    def read(self, frame: pd.DataFrame) -> Queries:
        """The rows of a request as codes. Raises DataError if a row is malformed."""
        return read_queries(frame, self.users, self.items)

    def rules(
        self,
        as_of_ms: int | None,
        exclude_seen: bool | None = None,
        filters: Sequence[str] = (),
    ) -> Rules:
        """What lists may hold at a time: the rules of the model, and those of a request.

        exclude_seen: None takes the model's own. filters: are added to the model's own.
        """
        if exclude_seen is None:
            exclude_seen = self.config.evaluation.exclude_seen
        return Rules(exclude_seen, (*self.config.serving.filters, *filters), as_of_ms)

    def sources(self, queries: Queries) -> Texts:
        """What answers each row, see `answer_sources`. → [B]"""
        features = self.config.features
        described = np.zeros(len(queries), np.bool_)
        if self.hot is not None and features.history.length == 0:
            described = self._known_columns(queries.rows)
        has_history = queries.histories.having(self.trained_items - 1).counts > 0
        return answer_sources(
            features, queries.codes > 0, has_history, described, self.hot is not None
        )

    def vectors(self, queries: Queries, sources: Texts) -> Floats:
        """The query vector of each row. → [B, D].

        The tower embeds rows with a known history, and rows of new users that have context or user
        columns. All other rows get the exported vector of their code. Rows that the hot list
        answers do not use their vector.
        """
        vectors = np.array(self.user_vectors[queries.codes], dtype=np.float32)
        encoded = sources == HISTORY_SOURCE
        if self._describing(queries.rows):
            encoded |= sources == CONTEXT
        if encoded.any():
            rows = np.flatnonzero(encoded)
            vectors[rows] = self.encoder.embed(
                queries.codes[rows], queries.histories.take(rows), queries.rows.iloc[rows]
            )
        return vectors

    def eligible(self, queries: Queries, rules: Rules) -> Eligible:
        """The items that each row may list. Raises DataError if a filter is not a condition."""
        excluded = [queries.exclude] if len(queries.exclude.items) else []
        if rules.exclude_seen:
            excluded.append(queries.histories)
            if self.seen is not None:
                excluded.append(self.seen.of_users(queries.codes))
        allowed = self.catalogue.allowed(rules.filters, rules.as_of_ms)
        together = reduce(Histories.followed_by, excluded) if excluded else None
        return Eligible(len(self.items) - 1, allowed, together)

    def answer(self, queries: Queries, rules: Rules, k: int) -> tuple[Lists, Texts]:
        """Item rows and scores, best first, [B, min(k, N)] each, and the source of each row.

        Missing results at the end have row -1 and score -inf.
        """
        sources = self.sources(queries)
        eligible = self.eligible(queries, rules)
        k = min(k, eligible.n_items)
        lists = self.index.search(self.vectors(queries, sources), k, eligible)
        if self.hot is not None:
            lists = self.hot.answer(sources == HOT, *lists, eligible)
        return lists, sources

    def retrieve(
        self,
        frame: pd.DataFrame,
        k: int,
        exclude_seen: bool | None = None,
        filters: Sequence[str] = (),
        as_of_ms: int | None = None,
    ) -> pd.DataFrame:
        """The k best items for each row of `frame`.

        exclude_seen: leave out the row's history and what its user has seen; None takes the
        model's own `evaluation.exclude_seen`. filters: conditions on item columns, beside the
        model's own. as_of_ms: items must be available at this time; None is the cutoff.

        Returns the columns `item_ids` and `scores`, lists of at most k, best first, and `source`,
        see `answer_sources`. A score is the similarity of the two towers' vectors; a score from the
        hot list is the item's share of the clicks. Raises DataError if `frame` has no rows, too
        many, or an unknown column, a row is malformed, a filter is not a condition, or k is not
        from 1 to 10,000.
        """
        check_k(k, MAX_K)
        queries = self.read(frame)
        check_columns(frame, column_names(self.config.features))
        check_size(len(frame), count_ids(frame))
        if exclude_seen and self.seen is None and USER in frame:
            raise DataError(
                "exclude_seen is true, but this version was registered without what users have"
                " seen: send histories without user ids, or register the model of a new run"
            )
        rules = self.rules(self.cutoff_ms if as_of_ms is None else as_of_ms, exclude_seen, filters)
        (rows, scores), sources = self.answer(queries, rules, k)
        present = rows >= 0
        ends = np.cumsum(present.sum(1)).tolist()
        answer = np.empty((len(queries), len(ANSWER)), dtype=object)
        answer[:, 0] = _lists(self.items.decode(rows[present] + 1), ends)
        answer[:, 1] = _lists(scores[present], ends)
        answer[:, 2] = sources
        return pd.DataFrame(answer, frame.index, ANSWER, dtype=object)  # pandas infers no types

    @cached_property
    def cutoff_ms(self) -> int | None:
        """The time as of which the bundle was exported; None for a split without days."""
        return cutoff_ms(self.config.split, self.config.data.zone)

    def _describing(self, rows: pd.DataFrame) -> bool:
        """Whether a request has context or user columns."""
        features = self.config.features
        context = any(feature.column in rows for feature in features.columns.context)
        return context or bool(described(features, rows))

    def _known_columns(self, rows: pd.DataFrame) -> Bools:
        """Whether each row has a context value that was seen in training or a user column. → [B]"""
        features = self.config.features
        codes = encode_context(features.columns, rows, self.folder)
        known = (codes > 0).any(1).numpy() | rows[described(features, rows)].notna().any(axis=1)
        return np.asarray(known, dtype=np.bool_)


def _lists(values: npt.NDArray[Any], ends: list[int]) -> npt.NDArray[Any]:
    """Values [n] as one list for each row. ends: [B], where each row ends. → [B] lists"""
    flat = values.tolist()
    lists = np.empty(len(ends), dtype=object)
    lists[:] = [flat[begin:end] for begin, end in zip([0, *ends[:-1]], ends, strict=True)]
    return lists


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
    return digest(hashes(folder))


def open_bundle(folder: Path | str) -> Bundle:
    """Open a bundle; MLflow is not needed.

    Raises ArtifactError if a file is missing or damaged.
    """
    folder = Path(folder)
    try:
        config = Config.model_validate_json((folder / CONFIG_FILE).read_bytes())
        users = Ids.load(folder / USER_IDS_FILE)
        items = Ids.load(folder / ITEM_IDS_FILE)
        vectors, item_vectors = (
            np.load(folder / file, mmap_mode="r", allow_pickle=False)
            for file in (USER_EMBEDDINGS_FILE, ITEM_EMBEDDINGS_FILE)
        )
        catalogue = open_catalogue(folder, len(items) - 1)
        seen = SeenItems.load(folder)
        hot = open_hot_list(folder)
    except (OSError, ValueError) as error:
        raise ArtifactError(
            f"bundle {folder} is incomplete or damaged: {error}. Register the model of the run"
            " again"
        ) from error
    member: Index = families.build(INDEXES, config.index)
    index = open_item_index(member, folder, item_vectors)
    if len(vectors) != len(users):
        raise ArtifactError(
            f"bundle {folder} has {len(vectors)} user vectors for {len(users)} codes. Register the"
            " model of the run again"
        )
    return Bundle(folder, config, users, items, vectors, index, catalogue, hot, seen)
