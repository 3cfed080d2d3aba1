"""A training that starts from the weights of a registered model (`train.start_from`).

The ids and vocabularies of the two models are matched by name: the embedding of a value that the
registered model does not have starts from the seed, as without `train.start_from`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from safetensors.torch import load_file
from torch import Tensor

from dssm_core.columns import ITEM, USER
from dssm_core.config import Config, Feature, Features
from dssm_core.data.splits.days import cutoff_ms
from dssm_core.errors import ArtifactError, ConfigError, DssmError, shorten
from dssm_core.features.coding import coder
from dssm_core.features.ids import Coder, Codes, Hashed, Ids
from dssm_core.features.tables import SEVERAL
from dssm_core.models.two_tower import TwoTower
from dssm_core.runs.layout import CONFIG_FILE, START_FOLDER, TOWERS_FILE, VERSION_FILE, ids_file
from dssm_core.runs.run import Run

MUST_MATCH = ("features", "tower", "item_tower", "model")


@dataclass(frozen=True)
class Start:
    """The registered model that a training starts from.

    name: model and version, such as `dssm-demo/3`. folder: its towers, ids and vocabularies.
    """

    name: str
    folder: Path
    config: Config

    def check(self, config: Config, held_out_ms: int) -> None:
        """Raise ConfigError if the model has other settings than `config`, or was trained on clicks
        from `held_out_ms` on, which choose the number of epochs or judge the new model.
        """
        new_settings = config.deciding()
        old_settings = self.config.deciding()
        differing = [
            f"{key} is {shorten(new)}, and was {shorten(old)}"
            for section in MUST_MATCH
            for key, new, old in _differences(section, new_settings[section], old_settings[section])
        ]
        if differing:
            raise ConfigError(
                f"train.start_from: {self.name} has other settings: {'; '.join(differing)}. Take"
                " its settings, or set train.start_from to null"
            )
        trained_until = cutoff_ms(self.config.split, self.config.data.zone)
        if trained_until is None or trained_until > held_out_ms:
            until = "an unknown time" if trained_until is None else _moment(trained_until)
            raise ConfigError(
                f"train.start_from: {self.name} was trained on clicks until {until}, and the clicks"
                f" from {_moment(held_out_ms)} on choose the number of epochs: start from an"
                " earlier version (train.start_from: NUMBER), or set train.start_from to null"
            )

    @torch.no_grad()
    def copy_into(self, model: TwoTower, samples: Path) -> None:
        """Replace the weights of a new model. samples: the folder with its ids and vocabularies.

        Raises ArtifactError if the weights have other names or shapes.
        """
        weights = load_file(self.folder / TOWERS_FILE)
        matched = _matched_rows(model, self.config.features, samples, self.folder)
        try:
            for name, parameter in model.named_parameters():
                _copy(parameter, weights[name], matched.get(name))
        except (KeyError, RuntimeError) as error:
            raise ArtifactError(
                f"train.start_from: the weights of {self.name} do not fit ({shorten(error)}): set"
                " train.start_from to null"
            ) from error


def open_start(run: Run) -> Start | None:
    """The model that a run's training starts from, which `start_files` has fetched; None if it
    starts from the seed.
    """
    folder = run.root / START_FOLDER
    if run.config.train.start_from is None or not (folder / TOWERS_FILE).is_file():
        return None
    version = json.loads((folder / VERSION_FILE).read_bytes())
    name = f"{version['model']}/{version['version']}"
    try:
        config = Config.model_validate_json((folder / CONFIG_FILE).read_bytes())
    except (DssmError, ValueError) as error:
        raise ArtifactError(
            f"train.start_from: {name} was registered by another version of this code, whose"
            " settings cannot be read. Set train.start_from to null"
        ) from error
    return Start(name, folder, config)


def _copy(parameter: Tensor, weights: Tensor, rows: Codes | None) -> None:
    if rows is None:
        parameter.copy_(weights)
        return
    old = torch.from_numpy(rows[: len(parameter)]).to(parameter.device)
    known = ((old > 0) & (old < len(weights))).nonzero().squeeze(1)
    parameter[known] = weights.to(parameter.device)[old[known]]


def _matched_rows(
    model: TwoTower, features: Features, samples: Path, older: Path
) -> dict[str, Codes]:
    """For each embedding table, the row of the older model for each row of the new one, 0 = none.
    → [codes] by the name of the parameter.
    """
    found = {}
    for column, table in ((ITEM, model.item_id), (USER, model.user_id)):
        if table is not None and len(table.weight) > 1:
            name = f"{column.removesuffix('_id')}_id.weight"
            ids, old_ids = (Ids.load(folder / ids_file(column)) for folder in (samples, older))
            found[name] = _rows(ids, old_ids)
    for side in ("item", "user"):
        own = [of for of in _embedded(features, side) if not of[1].shares]
        for number, (of, feature) in enumerate(own):
            new, old = (coder(features.columns, of, feature, at) for at in (samples, older))
            if not isinstance(new, Hashed):
                found[f"{side}_fields.tables.{number}.weight"] = _rows(new, old)
    return found


def _rows(new: Any, old: Coder) -> Codes:
    """The code in a vocabulary of each code in another, 0 = none. → [codes]"""
    ids = new if isinstance(new, Ids) else new.ids
    return np.append(np.zeros(1, np.int64), old.encode(ids.index.to_series()))


def _embedded(features: Features, side: str) -> Iterator[tuple[str, Feature]]:
    """The embedded columns of a tower in the order of its tables, each with where it is from."""
    of: tuple[Feature, ...] = getattr(features.columns, side)
    yield from ((side, feature) for feature in of if feature.kind == "categorical")
    if side == "user":
        yield from (("context", feature) for feature in features.columns.context)
    yield from ((side, feature) for feature in of if feature.kind in SEVERAL)
    if side == "item" and features.activity.enabled and features.activity.audience:
        yield from (("context", feature) for feature in features.columns.context)


def _differences(key: str, new: Any, old: Any) -> Iterator[tuple[str, Any, Any]]:
    """The settings that differ, as dotted paths with both values."""
    if isinstance(new, dict) and isinstance(old, dict):
        for name in sorted(new.keys() | old.keys()):
            yield from _differences(f"{key}.{name}", new.get(name), old.get(name))
    elif new != old:
        yield key, new, old


def _moment(time_ms: int) -> str:
    return f"{pd.Timestamp(time_ms, unit='ms'):%Y-%m-%d %H:%M} UTC"
