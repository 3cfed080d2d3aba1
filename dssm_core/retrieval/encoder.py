"""The user tower as it is served: external ids and histories in, unit vectors out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from safetensors.torch import load_file
from torch import Tensor

from dssm_core.aliases import Floats
from dssm_core.columns import ITEM, USER
from dssm_core.config import Config, Features
from dssm_core.features.dataset import Prepared, load_prepared
from dssm_core.features.histories import Histories
from dssm_core.features.ids import Ids
from dssm_core.features.inputs import user_inputs
from dssm_core.features.tables import encode_context
from dssm_core.models.two_tower import TwoTower
from dssm_core.runs.layout import CONFIG_FILE, TOWERS_FILE, ids_file

PLACES_AT_ONCE = 160_000  # of histories


class Encoder:
    """Users to vectors by the towers, ids and vocabularies in a bundle's folder (what
    `export_embeddings` wrote).
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.config = Config.model_validate_json((folder / CONFIG_FILE).read_bytes())
        self.prepared = load_prepared(folder, with_log=False)
        self.model = load_towers(folder, self.config, self.prepared)
        schema = (
            self.prepared.schema
        )  # ids that a refresh has added since stand behind those that the towers know
        self.user_ids = Ids.load(folder / ids_file(USER)).first(schema.users)
        self.item_ids = Ids.load(folder / ids_file(ITEM)).first(schema.items)

    @torch.no_grad()
    def users(self, frame: pd.DataFrame) -> Floats:
        """Vectors of users. frame: user_id, history (lists of item ids, newest last), context
        columns if known → [n, D].

        What is unknown (a user, an item of a history, a missing context column) counts as code 0.
        """
        features = self.config.features
        user = torch.from_numpy(self.user_ids.encode(frame[USER]))
        history = self._history(frame["history"], features.history.length)
        context = encode_context(features.columns, frame, self.folder)
        parts = zip(
            *(part.split(users_at_once(features)) for part in (user, history, context)), strict=True
        )
        vectors = [self.model.users(user_inputs(self.prepared.users, *part)) for part in parts]
        return torch.cat(vectors).numpy()

    def _history(self, lists: pd.Series[Any], length: int) -> Tensor:
        """The newest `length` known items of each list, oldest first, then 0. → [n, length] codes."""
        flat = lists.reset_index(drop=True).explode().dropna()
        codes = self.item_ids.encode(flat)
        query, codes = flat.index.to_numpy()[codes > 0], codes[codes > 0]
        newest = Histories.of(query, codes, len(lists)).latest(length)
        history = np.zeros((len(lists), length), dtype=np.int64)
        history[newest.query, np.arange(len(newest.items)) - newest.ptr[newest.query]] = (
            newest.items
        )
        return torch.from_numpy(history)


def users_at_once(features: Features) -> int:
    """Users embedded at a time: a tower over sequences holds some tensors of users times places."""
    return max(1, PLACES_AT_ONCE // max(1, features.history.length))


def load_towers(folder: Path, config: Config, prepared: Prepared) -> TwoTower:
    """The trained model in a folder with towers.safetensors, ready to embed, on the CPU."""
    model = TwoTower(config, prepared.schema, prepared.items)
    model.load_state_dict(load_file(folder / TOWERS_FILE))
    return model.eval()
