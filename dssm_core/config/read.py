"""Reading a config. In: YAML files and overrides; out: a checked `Config`, or all problems."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from dssm_core import families
from dssm_core.config.base import Member
from dssm_core.config.config import Config
from dssm_core.config.members import FAMILIES
from dssm_core.config.merge import IMPLIED_KINDS, merge, nested
from dssm_core.config.rules import problems_of
from dssm_core.config.sentences import sentences
from dssm_core.config.yaml_files import read_yaml
from dssm_core.config.yaml_text import bounded, load_yaml
from dssm_core.errors import ConfigError, shorten


def read_config(
    path: Path | str, data: Path | str | None = None, overrides: Iterable[str] = ()
) -> Config:
    """The config in a YAML file with overrides (`key.path=value`, values are YAML) over it.

    `extends: other.yaml` (relative to the file) takes that file's settings first and lays this
    file's over them. data: folder or file that replaces `data.source.path`. Raises ConfigError
    naming every wrong setting at once.
    """
    raw = read_yaml(path)
    changed = list(overrides)
    for override in changed:
        raw = _override(raw, override)
    if data is not None:
        raw = merge(raw, nested(["data", "source", "path"], str(data)))
    return parse_config(raw).with_changes(changed)


def parse_config(raw: Mapping[str, Any]) -> Config:
    """The config in a mapping. Raises ConfigError naming everything that is wrong: values, unknown
    keys, settings of members of families, settings that do not go together or have no effect.

    The last ones are refused here and not by `Config` itself, so that a stored config.json opens
    even if a later version refuses its settings.
    """
    config, problems = None, list(_member_problems(bounded(raw)))
    try:
        config = Config.model_validate(raw)
    except ValidationError as error:
        problems = [*sentences(error, Config, without=_checked(raw)), *problems]
    if config and not problems:
        problems = problems_of(config)
    if problems or config is None:
        raise ConfigError("\n".join(problems))
    return config


def _checked(raw: Mapping[str, Any]) -> str | None:
    """The section of which `_member_problems` says all that `Config` would."""
    split = raw.get("split")
    named = isinstance(split, Mapping) and isinstance(split.get("kind", ""), str)
    return "split" if named else None


def _member_problems(raw: Mapping[str, Any]) -> Iterator[str]:
    """What is wrong with the settings of each member that is chosen."""
    for path, family in FAMILIES.items():
        node: Any = raw
        for key in path.split("."):
            node = node.get(key) if isinstance(node, Mapping) else None
        if not isinstance(node, list | tuple):
            yield from _problems_of_member(node, path, family)
            continue
        for position, part in enumerate(node):
            yield from _problems_of_member(_unnamed(part), f"{path}.{position}", family)


def _unnamed(node: Any) -> Any:
    """A member of a list without its `name`."""
    if isinstance(node, str):
        return {"kind": node}
    if not isinstance(node, Mapping):
        return node
    return {key: value for key, value in node.items() if key != "name"}


def _problems_of_member(node: Any, path: str, family: Mapping[str, str]) -> Iterator[str]:
    """What is wrong with one member's settings. A section that is left out takes the default, and
    pydantic reports one that is no mapping or has no kind.
    """
    if not isinstance(node, Mapping):
        return
    if path in IMPLIED_KINDS:
        node = {"kind": IMPLIED_KINDS[path], **node}
    if not isinstance(node.get("kind"), str):
        return
    member = Member.model_validate(node)
    try:
        families.build(family, member)
    except ValidationError as error:
        yield from sentences(error, families.load(family, member.kind), f"{path}.")
    except ConfigError as error:
        yield f"{path}: {error}"


def _override(raw: dict[str, Any], override: str) -> dict[str, Any]:
    key, sign, text = override.partition("=")
    given = shorten(override)
    if not sign or not key:
        raise ConfigError(f"--set {given!r} is not key.path=value, such as train.epochs=3")
    try:
        value = load_yaml(text)
    except ConfigError as error:
        raise ConfigError(
            f"--set {given!r} is not a YAML value ({error}): quote it, such as"
            f" --set '{key}=\"{shorten(text)}\"'"
        ) from error
    keys = key.split(".")
    node: Any = raw
    for section in keys[:-1]:
        node = node.get(section)
        if node is None:
            break
        if not isinstance(node, dict):
            raise ConfigError(f"--set {key}: {section!r} holds a value, not a section")
    return merge(raw, nested(keys, value))
