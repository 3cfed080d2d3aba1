"""The user tower as it is served: codes, histories and columns in, vectors out."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.nn.functional import pad

from dssm_core.aliases import Floats, Ints
from dssm_core.config import Config, Features
from dssm_core.features.dataset import Prepared, load_prepared
from dssm_core.features.histories import Histories
from dssm_core.features.ids import Ids
from dssm_core.features.inputs import ColumnTable, user_inputs
from dssm_core.features.tables import encode_context, encode_table
from dssm_core.models.two_tower import TwoTower
from dssm_core.runs.layout import CONFIG_FILE, ITEM_IDS_FILE, TOWERS_FILE, USER_IDS_FILE

POSITIONS_PER_BATCH = 160_000  # users times history length


class Encoder:
    """Embeds users with the towers and vocabularies in a folder of exported embeddings or a bundle.

    Users whose codes lie behind those of the training count as unknown. Histories hold only items
    with a trained id.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.config = Config.model_validate_json((folder / CONFIG_FILE).read_bytes())
        self.prepared = load_prepared(folder, with_log=False)
        self.model = load_towers(folder, self.config, self.prepared)

    @cached_property
    def user_ids(self) -> Ids:
        """The users of the training. A refreshed bundle lists new users behind them."""
        return Ids.load(self.folder / USER_IDS_FILE).first(self.prepared.schema.users)

    @cached_property
    def item_ids(self) -> Ids:
        """The items that were exported. A refreshed bundle lists new items behind them."""
        exported = len(self.prepared.items.categorical)
        return Ids.load(self.folder / ITEM_IDS_FILE).first(exported)

    @torch.no_grad()
    def embed(self, codes: Ints, histories: Histories, rows: pd.DataFrame) -> Floats:
        """Vectors of users. → [B, D].

        codes: [B], 0 = unknown. histories: item rows of each user, oldest first. rows: [B] rows of
        context columns, and of user columns, which describe unknown users; a column that is missing
        counts as unknown.
        """
        features = self.config.features
        schema = self.prepared.schema
        user = torch.from_numpy(np.where(codes < schema.users, codes, 0))
        history = self._history(histories, features.history.length)
        context = encode_context(features.columns, rows, self.folder)
        table = self._user_columns(user, rows)
        size = users_per_batch(features)
        parts = torch.arange(len(user)).split(size)
        vectors = [self._embed(table, user, history, context, part) for part in parts]
        return torch.cat(vectors).numpy()

    @torch.no_grad()
    def embed_new(self, context: Tensor) -> Floats:
        """Vectors of the unknown user without a history, in contexts of these codes. context: [B,
        columns] → [B, D].
        """
        parts = torch.arange(len(context)).split(users_per_batch(self.config.features))
        unknown = torch.zeros(len(context), dtype=torch.int64)
        history = unknown.new_zeros(len(context), self.config.features.history.length)
        table = self.prepared.users.take(unknown)
        vectors = [self._embed(table, unknown, history, context, part) for part in parts]
        return torch.cat(vectors).numpy()

    def _embed(
        self, table: ColumnTable, user: Tensor, history: Tensor, context: Tensor, part: Tensor
    ) -> Tensor:
        inputs = user_inputs(table, part, history[part], context[part])
        vectors: Tensor = self.model.users(inputs._replace(user=user[part]))
        return vectors

    def _history(self, histories: Histories, length: int) -> Tensor:
        """The newest `length` items of each history that have a trained embedding, oldest first,
        padded with 0. → [B, length] codes.
        """
        newest = histories.having(self.prepared.schema.items - 1).latest(length)
        position = np.arange(len(newest.items)) - newest.ptr[newest.query]
        history = np.zeros((len(newest), length), dtype=np.int64)
        history[newest.query, position] = newest.items + 1
        return torch.from_numpy(history)

    def _user_columns(self, user: Tensor, rows: pd.DataFrame) -> ColumnTable:
        """The columns of each user: of known users as exported, of unknown users from `rows`. →
        tables [B, …]
        """
        table = self.prepared.users.take(user)
        unknown = (user == 0).numpy()
        given = described(self.config.features, rows)
        if not given or not unknown.any():
            return table
        names = {feature.column: None for feature in self.config.features.columns.user}
        asked = rows[unknown].reindex(columns=list(names))
        new = encode_table(self.config.features.columns, "user", asked, self.folder)
        width = table.multi.shape[2]
        multi = pad(new.multi[:, :, :width], (0, max(0, width - new.multi.shape[2])))
        at = torch.from_numpy(unknown)
        table.categorical[at], table.multi[at], table.numeric[at] = (
            new.categorical,
            multi,
            new.numeric,
        )
        return table


def described(features: Features, rows: pd.DataFrame) -> list[str]:
    """The user columns that a request has."""
    names = {feature.column: None for feature in features.columns.user if feature.in_table}
    return [name for name in names if name in rows]


def users_per_batch(features: Features) -> int:
    """How many users to embed at a time: sequence towers hold tensors of users times history
    length.
    """
    return max(1, POSITIONS_PER_BATCH // max(1, features.history.length))


def load_towers(folder: Path, config: Config, prepared: Prepared) -> TwoTower:
    """The trained model in a folder with towers.safetensors, on the CPU, in evaluation mode."""
    model = TwoTower(config, prepared.schema, prepared.items)
    model.load_state_dict(load_file(folder / TOWERS_FILE))
    return model.eval()
