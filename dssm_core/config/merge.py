"""The one rule by which settings are laid over other settings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

IMPLIED_KINDS = {"split": "days"}  # the kind of a section that has no `kind`, by path


def merge(base: Mapping[str, Any], top: Mapping[str, Any], path: str = "") -> dict[str, Any]:
    """The settings of `base` with those of `top` over them, as a new mapping.

    Sections are merged key by key; other values, lists too, are replaced. A section whose `kind`
    changes is another member of its family, which does not take over the settings of the old one.
    path: where both stand in the config, dotted.
    """
    merged = dict(base)
    for key, value in top.items():
        below = merged.get(key)
        place = f"{path}.{key}".lstrip(".")
        if isinstance(value, Mapping) and isinstance(below, Mapping):
            merged[key] = merge(below, value, place) if _same_kind(below, value, place) else value
        else:
            merged[key] = value
    return merged


def nested(keys: list[str], value: Any) -> dict[str, Any]:
    """Settings of one value: `nested(["train", "epochs"], 3)` is {"train": {"epochs": 3}}."""
    for key in reversed(keys):
        value = {key: value}
    return dict(value)


def _same_kind(base: Mapping[str, Any], top: Mapping[str, Any], path: str) -> bool:
    kind = base.get("kind", IMPLIED_KINDS.get(path))
    return bool(top.get("kind", kind) == kind)
