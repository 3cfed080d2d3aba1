"""Every setting with type, default, unit, meaning and the members that use it, from the models.

`dssm settings` prints them, and docs/settings.md has them as tables.
"""

from __future__ import annotations

import re
import types
import typing
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Literal

from annotated_types import Ge, Gt, Le, Lt
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from dssm_core import families
from dssm_core.config.base import Member, Section, section_of
from dssm_core.config.config import Config
from dssm_core.config.feature_columns import USED_BY_KIND, Feature
from dssm_core.config.members import FAMILIES
from dssm_core.config.rules import written

UNITS = {"_h": "hours", "_s": "seconds", "_min": "minutes", "_gib": "GiB", "days": "days"}
SIGNS: dict[type, tuple[str, str]] = {
    Ge: ("≥", "ge"),
    Gt: (">", "gt"),
    Le: ("≤", "le"),
    Lt: ("<", "lt"),
}
HEAD = """# Settings

Every setting of a config file, with type, default, unit and meaning. *Used by* names the members
that read the setting; if it is empty, all do. A setting that has no effect beside the others is
refused.

- `dssm settings KEY` prints the same for a setting or a section, such as `dssm settings train`.
- `--set KEY=VALUE` replaces a setting for one run; a file with `extends: other.yaml` replaces
  settings of another file.
- A *member* is one of a family of interchangeable parts. `kind` chooses it, and its own settings
  stand beside `kind`: `loss: {kind: triplet, margin: 0.2}`. The members follow the sections.
- Editors that know `configs/schema.json` complete and check settings while you write.

This page is generated from the models: `dssm settings --markdown > docs/settings.md`.

"""
NAMES = {int: "whole number", float: "number", str: "text", bool: "true or false"}


@dataclass(frozen=True)
class Setting:
    """One setting. path: dotted; unit and used_by: empty if there is nothing to say."""

    path: str
    type: str
    default: str
    unit: str
    meaning: str
    used_by: str = ""


@dataclass(frozen=True)
class SettingGroup:
    """The settings of a section, or of one member of a family (`kind`), at `path` in the config.

    owner: the member that has the section, if it is none of the config's own.
    """

    path: str
    kind: str
    text: str
    settings: tuple[Setting, ...]
    owner: str = ""

    @property
    def title(self) -> str:
        """The path, with the kind if it is a member."""
        if self.kind:
            return f"{self.path}, kind: {self.kind}"
        return f"{self.path} of {self.owner}" if self.owner else self.path or "The whole config"


def all_groups() -> list[SettingGroup]:
    """All sections in the order of the config, then all members of each family."""
    ignored = _ignored()
    groups = list(_sections(Config, "", lambda path: _not_under(path, ignored)))
    for path, family in FAMILIES.items():
        if path == "item_tower":  # the members of `tower`
            continue
        for kind in family:
            member = families.load(family, kind)
            groups += _sections(member, path, lambda _: "", kind)
    return groups


def matching(groups: list[SettingGroup], key: str) -> list[SettingGroup]:
    """The groups with only those settings whose path is `key` or below it."""
    matches = []
    for group in groups:
        settings = tuple(
            setting for setting in group.settings if f"{setting.path}.".startswith(f"{key}.")
        )
        if settings or (group.kind and group.path == key):
            matches.append(replace(group, settings=settings))
    return matches


def markdown(groups: list[SettingGroup]) -> str:
    """The groups as tables. A group that repeats the settings of another one refers to it."""
    tables = []
    first: dict[tuple[Any, ...], str] = {}
    for group in groups:
        content = (group.text, *(setting.meaning for setting in group.settings))
        other = first.setdefault(content, group.title) if group.settings else group.title
        if other == group.title:
            tables.append(_table(group))
        else:
            tables.append(
                f"{_level(group)} {group.title}\n\nThe settings of [{other}](#{_anchor(other)})."
            )
    return "\n\n".join(tables) + "\n"


def page(groups: list[SettingGroup]) -> str:
    """The page docs/settings.md."""
    return HEAD + markdown(groups)


def plain(groups: list[SettingGroup]) -> Iterator[str]:
    """The groups as lines for a terminal."""
    for group in groups:
        if group.kind:
            yield f"{group.title}: {group.text}"
        for setting in group.settings:
            unit = f", {setting.unit}" if setting.unit else ""
            yield f"{setting.path}  ({setting.type}{unit}; default: {setting.default})"
            yield f"    {setting.meaning}"
            if setting.used_by:
                yield f"    Used by: {setting.used_by}."


def _sections(
    model: type[BaseModel],
    path: str,
    used_by: Callable[[str], str],
    kind: str = "",
    owner: str = "",
) -> Iterator[SettingGroup]:
    """The model's own group, then those of the models inside it."""
    settings = []
    inside: list[tuple[type[BaseModel], str]] = []
    for name, field in model.model_fields.items():
        if name == "kind" and not issubclass(model, Feature):
            continue
        place = f"{path}.{name}".lstrip(".")
        section = section_of(field.annotation)
        if section is None or issubclass(section, Member) or not _is_plain(field.annotation):
            settings.append(_setting(field, place, model, used_by))
        if section and section.model_fields.keys() - {"kind", "name"}:
            inside.append((section, place))
    if settings or kind:
        text = _one_line(model.__doc__ or "")
        yield SettingGroup(path, kind, text, tuple(settings), owner)
    for section, place in inside:
        yield from _sections(section, place, used_by, owner=kind or owner)


def _setting(
    field: FieldInfo, path: str, model: type[BaseModel], used_by: Callable[[str], str]
) -> Setting:
    name = path.rpartition(".")[2]
    users = used_by(path)
    if issubclass(model, Feature):
        kinds = [kind for kind, names in USED_BY_KIND.items() if name in names]
        users = f"kind {', '.join(kinds)}" if kinds else ""
    kind = _type_text(field.annotation, field.metadata)
    unit = next((unit for end, unit in UNITS.items() if name.endswith(end)), "")
    return Setting(
        path=path,
        type=kind,
        default=_default_text(field),
        unit=unit if "number" in kind else "",
        meaning=_one_line(field.description or ""),
        used_by=users,
    )


def _default_text(field: FieldInfo) -> str:
    if field.default is PydanticUndefined:
        return "none: must be given"
    if isinstance(field.default, Member):
        return field.default.kind
    if isinstance(field.default, tuple) and all(isinstance(v, Member) for v in field.default):
        return written([member.kind for member in field.default])
    return written(field.default)


def _is_plain(annotation: Any) -> bool:
    """Whether an annotation is a section itself, not a list of sections or a section or null."""
    return isinstance(annotation, type) and issubclass(annotation, Section)


def _type_text(annotation: Any, metadata: Any = ()) -> str:
    origin, args = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        return _type_text(args[0], args[1:])
    if origin is Literal:
        return " or ".join(f"`{value}`" for value in args)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(_type_text(part, metadata) for part in args)
    if origin is tuple and args[-1] is Ellipsis:
        return f"list of {_type_text(args[0])}"
    if origin is tuple:
        return f"[{', '.join(_type_text(part) for part in args)}]"
    if origin is dict:
        return f"mapping from {_type_text(args[0])} to {_type_text(args[1])}"
    if annotation is type(None):
        return "null"
    if isinstance(annotation, type) and issubclass(annotation, Member):
        return "member"
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return "section"
    if annotation is Any:
        return "member"
    return " ".join(
        [NAMES.get(annotation, getattr(annotation, "__name__", "")), *_limits(metadata)]
    )


def _limits(metadata: Any) -> Iterator[str]:
    for entry in metadata:
        for constraint in entry.metadata if isinstance(entry, FieldInfo) else [entry]:
            for kind, (sign, name) in SIGNS.items():
                if isinstance(constraint, kind):
                    yield f"{sign} {getattr(constraint, name):g}"


def _ignored() -> dict[str, list[tuple[str, str]]]:
    """The members that ignore a setting, as (where chosen, kind), by the setting's path."""
    ignored: dict[str, list[tuple[str, str]]] = {}
    for path, family in FAMILIES.items():
        if path == "item_tower":
            continue
        for kind in family:
            for setting in families.load(family, kind).ignores:
                ignored.setdefault(setting, []).append((path, kind))
    return ignored


def _not_under(path: str, ignored: dict[str, list[tuple[str, str]]]) -> str:
    members = [
        member
        for setting, members in ignored.items()
        if path == setting or path.startswith(f"{setting}.")
        for member in members
    ]
    if not members:
        return ""
    kinds: dict[str, list[str]] = {}
    for where, kind in members:
        kinds.setdefault(where, []).append(kind)
    return "all but " + "; ".join(f"{where} {', '.join(kinds[where])}" for where in kinds)


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _level(group: SettingGroup) -> str:
    return "###" if group.kind or group.owner else "##"


def _anchor(title: str) -> str:
    """The link that GitHub makes of a title."""
    return re.sub(r"[^a-z0-9_ -]", "", title.lower()).replace(" ", "-")


def _table(group: SettingGroup) -> str:
    head = f"{_level(group)} {group.title}\n\n{group.text}"
    if not group.settings:
        return f"{head}\n\nNo settings."
    users = any(setting.used_by for setting in group.settings)
    columns = ["Setting", "Type", "Default", "Unit", "Meaning", *(["Used by"] if users else [])]
    lines = [_row(columns), _row(["---"] * len(columns))]
    for setting in group.settings:
        cells = [f"`{setting.path}`", setting.type, f"`{setting.default}`", setting.unit]
        lines.append(_row([*cells, setting.meaning, *([setting.used_by] if users else [])]))
    return f"{head}\n\n" + "\n".join(lines)


def _row(cells: list[str]) -> str:
    escaped = [cell.replace("|", "\\|") for cell in cells]
    return f"| {' | '.join(escaped)} |"
