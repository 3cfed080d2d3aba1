"""Settings as YAML text with comments: explanations beside a setting, what to check above it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from textwrap import wrap
from typing import Any

import yaml

WIDTH = 100
UNSURE = "CHECK: "


@dataclass(frozen=True)
class Remark:
    """A comment on the setting at a dotted path. unsure: whether a person should check it."""

    path: str
    text: str
    unsure: bool = False


def commented(settings: Mapping[str, Any], remarks: Sequence[Remark], head: str) -> str:
    """The settings as YAML text. Each remark is above or beside its setting; head: the first lines,
    as comments.
    """
    lines = [*_comment(head, ""), *_section(settings, remarks, "", "")]
    return "\n".join(lines) + "\n"


def _section(
    settings: Mapping[str, Any], remarks: Sequence[Remark], path: str, indent: str
) -> Iterator[str]:
    for key, value in settings.items():
        own = f"{path}{key}"
        said = [remark for remark in remarks if remark.path == own]
        beside = [remark.text for remark in said if not remark.unsure]
        for remark in said:
            if remark.unsure:
                yield from _comment(UNSURE + remark.text, indent)
        if isinstance(value, Mapping) and value and not _is_flat(value):
            yield f"{indent}{_flow(key)}:"
            yield from _comment("; ".join(beside), f"{indent}  ")
            yield from _section(value, remarks, f"{own}.", f"{indent}  ")
        elif isinstance(value, list) and any(isinstance(part, Mapping) for part in value):
            yield f"{indent}{_flow(key)}:"
            yield from _comment("; ".join(beside), f"{indent}  ")
            yield from (f"{indent}  - {_flow(part)}" for part in value)
        else:
            comment = f" # {'; '.join(beside)}" if beside else ""
            yield from _beside(f"{indent}{_flow(key)}: {_flow(value)}", comment, indent)


def _beside(line: str, comment: str, indent: str) -> Iterator[str]:
    """A line and its comment, which is above it if both do not fit."""
    if comment and len(line) + len(comment) > WIDTH:
        yield from _comment(comment[3:], indent)
        comment = ""
    yield line + comment


def _is_flat(value: Mapping[str, Any]) -> bool:
    """Whether a mapping is short enough for one line."""
    simple = not any(isinstance(part, Mapping | list) for part in value.values())
    return simple and len(value) <= 3 and len(_flow(value)) < WIDTH // 2


def _flow(value: Any) -> str:
    """A value in one line."""
    text = yaml.safe_dump(
        value, default_flow_style=True, allow_unicode=True, sort_keys=False, width=1_000_000
    )
    return text.removesuffix("\n").removesuffix("\n...").strip()


def _comment(text: str, indent: str) -> Iterator[str]:
    for paragraph in text.splitlines():
        for line in wrap(paragraph, WIDTH - len(indent) - 2, break_on_hyphens=False) or [""]:
            yield f"{indent}# {line}".rstrip()
