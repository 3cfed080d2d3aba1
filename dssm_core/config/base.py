"""What every section of a config is, and how a section chooses a member of a family."""

from __future__ import annotations

import re
import typing
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, field_validator, model_validator

SAFE_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")
REPORT_ROWS = ("served", "exact", "daily", "ceiling", "champion", "all", "queries")


class Section(BaseModel):
    """A part of the config. Unknown keys are errors; values do not change after reading."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class Member(BaseModel):
    """The choice of one member of a family. The member's own settings stand beside `kind`."""

    model_config = ConfigDict(frozen=True, extra="allow", use_attribute_docstrings=True)
    kind: str

    @property
    def settings(self) -> dict[str, Any]:
        """The member's own settings, without `kind`."""
        return dict(self.__pydantic_extra__ or {})


class Named(Member):
    """One of several members: its kind alone, or its kind with settings.

    The report calls it `name`, which is its kind unless another name is given.
    """

    name: str

    @model_validator(mode="before")
    @classmethod
    def _fill_in_name(cls, value: Any) -> Any:
        value = {"kind": value} if isinstance(value, str) else value
        has_kind = isinstance(value, Mapping) and "kind" in value
        return {"name": value["kind"], **value} if has_kind else value

    @field_validator("name")
    @classmethod
    def _check_name(cls, value: str) -> str:
        if not SAFE_NAME.fullmatch(value) or value in REPORT_ROWS:
            raise ValueError(
                f"{value!r} names a row of the report: use a-z, 0-9, - and _ only,"
                f" and not {', '.join(REPORT_ROWS)}"
            )
        return value


def section_of(annotation: Any) -> type[BaseModel] | None:
    """The model inside an annotation (`Rolling | None`, `tuple[Feature, ...]`), if there is one."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    parts = (section_of(part) for part in typing.get_args(annotation))
    return next((part for part in parts if part), None)
