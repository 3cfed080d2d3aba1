"""Pydantic's errors as sentences that name the setting, its value and what to do."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import BaseModel, ValidationError

from dssm_core import families
from dssm_core.config.base import section_of
from dssm_core.errors import shown


def sentences(
    error: ValidationError, model: type[BaseModel], prefix: str = "", without: str | None = None
) -> Iterator[str]:
    """A sentence for each error in the settings of `model`.

    prefix: the dotted path of these settings in the config. without: a section whose errors are
    left out.
    """
    for problem in error.errors():
        if without is None or problem["loc"][:1] != (without,):
            yield _sentence(dict(problem), model, prefix)


def _sentence(problem: dict[str, Any], model: type[BaseModel], prefix: str) -> str:
    loc = problem["loc"]
    where = (prefix + ".".join(str(part) for part in loc)).rstrip(".")
    if problem["type"] == "extra_forbidden":
        hint = families.did_you_mean(str(loc[-1]), _siblings(loc, model))
        return f"unknown key {where!r}: {hint}"
    if problem["type"] == "missing":
        return f"{where!r} is missing: add it to the config or give --set {where}=…"
    text = problem["msg"].removeprefix("Value error, ")
    if problem["type"] == "int_parsing_size":
        text = "give a smaller number"
    if isinstance(problem["input"], Mapping):  # settings that do not go together: not shown whole
        return f"{where}: {text}" if where else text
    return f"{where!r} is {shown(problem['input'])}: {text}"


def _siblings(loc: tuple[str | int, ...], model: Any) -> list[str]:
    """The names of the settings beside an unknown one."""
    for part in loc[:-1]:
        if isinstance(part, str):  # a number is the place in a list
            field = getattr(model, "model_fields", {}).get(part)
            model = section_of(field.annotation) if field else None
    return [name for name in getattr(model, "model_fields", {}) if name != "kind"]
