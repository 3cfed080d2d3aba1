"""The user tower as it is served: external ids and histories in, vectors out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from safetensors.torch import load_file
from torch import Tensor

from dssm_core.aliases import Floats
from dssm_core.columns import USER
from dssm_core.config import Config, Features
from dssm_core.features.dataset import Prepared, load_prepared
from dssm_core.features.histories import Histories
from dssm_core.features.ids import Ids
from dssm_core.features.inputs import user_inputs
from dssm_core.features.tables import encode_context
from dssm_core.models.two_tower import TwoTower
from dssm_core.runs.layout import CONFIG_FILE, ITEM_IDS_FILE, TOWERS_FILE, USER_IDS_FILE

POSITIONS_PER_BATCH = 160_000  # users times history length


class Encoder:
    """Embeds users with the towers, ids and vocabularies in a folder of exported embeddings or a
    bundle.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.config = Config.model_validate_json((folder / CONFIG_FILE).read_bytes())
        self.prepared = load_prepared(folder, with_log=False)
        self.model = load_towers(folder, self.config, self.prepared)
        # A refreshed bundle lists new ids behind those that the towers were trained on.
        schema = self.prepared.schema
        self.user_ids = Ids.load(folder / USER_IDS_FILE).first(schema.users)
        self.item_ids = Ids.load(folder / ITEM_IDS_FILE).first(schema.items)

    @torch.no_grad()
    def users(self, frame: pd.DataFrame) -> Floats:
        """Vectors of users. → [n, D].

        frame: n rows with user_id, history (lists of item ids, newest last) and context columns. An
        unknown user, an unknown item and a missing context column count as code 0.
        """
        features = self.config.features
        user = torch.from_numpy(self.user_ids.encode(frame[USER]))
        history = self._history(frame["history"], features.history.length)
        context = encode_context(features.columns, frame, self.folder)
        size = users_per_batch(features)
        parts = zip(user.split(size), history.split(size), context.split(size), strict=True)
        vectors = [self.model.users(user_inputs(self.prepared.users, *part)) for part in parts]
        return torch.cat(vectors).numpy()

    def _history(self, lists: pd.Series[Any], length: int) -> Tensor:
        """The newest `length` known items of each list, oldest first, padded with 0. → [n, length]
        codes.
        """
        flat = lists.reset_index(drop=True).explode().dropna()
        codes = self.item_ids.encode(flat)
        known = codes > 0
        newest = Histories.of(flat.index.to_numpy()[known], codes[known], len(lists)).latest(length)
        position = np.arange(len(newest.items)) - newest.ptr[newest.query]
        history = np.zeros((len(lists), length), dtype=np.int64)
        history[newest.query, position] = newest.items
        return torch.from_numpy(history)


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
