"""YAML files of settings, with those that they extend. Imports little: Dag files read a config's
name each time that Airflow parses them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from dssm_core.config.merge import merge
from dssm_core.config.yaml_text import load_yaml
from dssm_core.errors import ConfigError, shown

MAX_BYTES = 1_000_000  # of a config: more is a log that was given by mistake


def read_yaml(path: Path | str, extended_by: tuple[Path, ...] = ()) -> dict[str, Any]:
    """The mapping in a YAML file, laid over those of the files that it extends (see merge).
    Settings are not checked. Raises ConfigError naming the file.
    """
    path = Path(path)
    via = "".join(f", extended by {str(file)!r}" for file in extended_by[::-1])
    if not _is_file(path):
        raise ConfigError(
            f"config {str(path)!r} is not a file{via}: give a YAML such as configs/demo.yaml"
        )
    if path.resolve() in [file.resolve() for file in extended_by]:
        raise ConfigError(f"config {str(path)!r} extends itself{via}: remove one `extends`")
    try:
        raw = load_yaml(_text(path))
    except (ConfigError, OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"config {str(path)!r} is not valid YAML{via}: {error}") from error
    if not isinstance(raw, dict):
        content = "is empty" if raw is None else f"holds {type(raw).__name__}, not a mapping"
        raise ConfigError(
            f"config {str(path)!r} {content}{via}: write settings as in configs/demo.yaml"
        )
    _resolve_source(raw, path.parent)
    if "extends" not in raw:
        return raw
    base = raw.pop("extends")
    if not isinstance(base, str) or not base:
        raise ConfigError(
            f"config {str(path)!r}: 'extends' is {shown(base)}, not one file:"
            " give one, such as ../globo.yaml"
        )
    return merge(read_yaml(path.parent / base, (*extended_by, path)), raw)


def _resolve_source(raw: dict[str, Any], folder: Path) -> None:
    """A relative data.source.path that does not exist below the working directory, but does below
    the folder of the config, becomes the latter.
    """
    node: Any = raw
    for key in ("data", "source"):
        node = node.get(key) if isinstance(node, dict) else None
    given = node.get("path") if isinstance(node, dict) else None
    if not isinstance(given, str) or not given or given.startswith("~"):
        return
    if not _exists(Path(given)) and _exists(folder / given):
        node["path"] = str(folder / given)


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:  # such as a name that is too long
        return False


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # such as a name that is too long
        return False


def _text(path: Path) -> str:
    if (size := path.stat().st_size) > MAX_BYTES:
        raise ConfigError(
            f"it has {size:,} bytes, but a config has at most {MAX_BYTES:,}: check that it is the"
            " right file"
        )
    return path.read_text(encoding="utf-8")
