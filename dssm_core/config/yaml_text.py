"""YAML text as plain values of limited size. A key that is there twice, an impossible date or
settings that hold themselves are a ConfigError.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import yaml

from dssm_core.errors import ConfigError, shorten, shown

MAX_DEPTH = 30  # of settings inside settings
MAX_VALUES = 100_000  # with those of aliases, each as often as it is named


def load_yaml(text: str) -> Any:
    """The value that a YAML text holds. Raises ConfigError naming the line, or what `bounded`
    refuses.
    """
    try:
        return bounded(yaml.load(text, _Loader))
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        context = f"{error.context}, " if error.context else ""
        advice = "" if isinstance(error, _OddYaml) else ": correct the line"
        raise ConfigError(f"{where}{context}{error.problem}{advice}") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"{error}: remove what is no text") from error
    except RecursionError as error:
        raise ConfigError(_TOO_DEEP) from error


def bounded(value: Any) -> Any:
    """The value itself. Raises ConfigError if settings are nested too deep or are too many, or if a
    key is no text.
    """
    for count, (depth, node) in enumerate(_walk(value)):
        if depth > MAX_DEPTH:
            raise ConfigError(_TOO_DEEP)
        if count == MAX_VALUES:
            raise ConfigError(
                f"it holds more than {MAX_VALUES:,} values, each alias counted as often as it is"
                " named: remove some"
            )
        for key in node if isinstance(node, Mapping) else ():
            if not isinstance(key, str):
                raise ConfigError(
                    f"the key {shown(key)} is {type(key).__name__}, not text: quote it, or remove"
                    " it"
                )
    return value


def _walk(value: Any) -> Iterator[tuple[int, Any]]:
    """Each value inside a value and its depth. Goes on as long as it is asked: a value may hold
    itself.
    """
    waiting = [(0, value)]
    while waiting:
        depth, node = waiting.pop()
        yield depth, node
        if isinstance(node, Mapping):
            waiting += [(depth + 1, part) for part in node.values()]
        elif isinstance(node, list | tuple | set):
            waiting += [(depth + 1, part) for part in node]


class _OddYaml(yaml.constructor.ConstructorError):
    """An error with what to do; those of PyYAML say only what is wrong."""


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader, but of two equal keys it drops none silently."""

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        lines: dict[str, int] = {}
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                continue
            line = key.start_mark.line + 1
            if key.value in lines:
                problem = (
                    f"the key {shown(key.value)} is also in line {lines[key.value]}: keep one of"
                    " them"
                )
                raise _OddYaml(None, None, problem, key.start_mark)
            lines[key.value] = line
        return node

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        """As PyYAML, whose errors of single values (2024-02-30, `!!int x`) name no line."""
        try:
            return super().construct_object(node, deep)
        except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
            kind = node.tag.rpartition(":")[2]
            problem = (
                f"{shorten(node.value)!r} is not a valid {kind}: correct it, or quote it if it is"
                " text"
            )
            raise _OddYaml(None, None, problem, node.start_mark) from error


_TOO_DEEP = (
    f"settings are nested more than {MAX_DEPTH} deep, or hold themselves: remove a level, or an"
    " alias"
)
