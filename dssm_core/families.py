"""Families of interchangeable parts: a dict of names, members imported only when used.

A family is a dict in its package's ``__init__``: ``{"name": "module:Class"}``. A member is a frozen
pydantic model: its fields are its settings, its methods the family's Protocol. Names are known without
importing a member, so a Dag file can list them without importing torch.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Any

from dssm_core.errors import ConfigError

if TYPE_CHECKING:
    from dssm_core.config import Member


def did_you_mean(name: str, known: list[str]) -> str:
    """A hint for a misspelt name: the closest known one, else all of them."""
    close = difflib.get_close_matches(name, known, n=1)
    return f"did you mean {close[0]!r}?" if close else f"choose one of {', '.join(sorted(known))}."


def load(family: Mapping[str, str], kind: str) -> type[Any]:
    """The class of the member called `kind`; ConfigError when there is none."""
    if kind not in family:
        raise ConfigError(f"unknown kind {kind!r}: {did_you_mean(kind, list(family))}")
    member: type[Any] = named(family[kind])
    return member


def named(path: str) -> Any:
    """What `module:name` names, its module imported now."""
    module, _, name = path.partition(":")
    return getattr(import_module(module), name)


def build(family: Mapping[str, str], member: Member) -> Any:
    """The member with the settings of its config section; ConfigError (pydantic's) on a wrong one."""
    return load(family, member.kind)(**member.settings)
