"""Config files as they are written, one over another. Light: Dag files read a config's name by it
each time they are parsed.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from dssm_core.errors import ConfigError


def read_yaml(path: Path | str, extended_by: tuple[Path, ...] = ()) -> dict[str, Any]:
    """The mapping in a YAML file over those of the files it extends; not checked any further.
    ConfigError names the file.
    """
    path = Path(path)
    told = "".join(f", extended by {str(file)!r}" for file in extended_by[::-1])
    if not path.is_file():
        raise ConfigError(
            f"config {str(path)!r} is not a file{told}: give a YAML such as configs/demo.yaml"
        )
    if path.resolve() in [file.resolve() for file in extended_by]:
        raise ConfigError(f"config {str(path)!r} extends itself{told}: remove one `extends`")
    try:
        raw = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"config {str(path)!r} is not valid YAML{told}: {error}") from error
    if not isinstance(raw, dict):
        raise ConfigError(
            f"config {str(path)!r} holds {type(raw).__name__}, not a mapping{told}: see configs/demo.yaml"
        )
    if "extends" not in raw:
        return raw
    base = raw.pop("extends")
    if not isinstance(base, str) or not base:
        raise ConfigError(
            f"config {str(path)!r}: 'extends' is {base!r}, not one file, such as ../globo.yaml"
        )
    return _lay_over(read_yaml(path.parent / base, (*extended_by, path)), raw)


def _lay_over(base: dict[str, Any], top: Mapping[str, Any]) -> dict[str, Any]:
    """base with the values of top; sections are merged, but another member (`kind`) brings none of
    the old one's settings.
    """
    merged = dict(base)
    for key, value in top.items():
        below: Any = merged.get(key)
        sections = isinstance(value, dict) and isinstance(below, dict)
        merged[key] = (
            _lay_over(below, value)
            if sections and value.get("kind", below.get("kind")) == below.get("kind")
            else value
        )
    return merged
