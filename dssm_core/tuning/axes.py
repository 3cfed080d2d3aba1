"""The axes of a sweep: settings with the values to try, read from `key.path=value,value`."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any

from dssm_core.config.yaml_text import load_yaml
from dssm_core.errors import ConfigError

RANGE = re.compile(r"([-+.\deE]+?)\.\.([-+.\deE]+)(\s+log)?")


@dataclass(frozen=True)
class Range:
    """All numbers from low to high, whole numbers if both are.

    log: spread by ratio. ValueError if the range is empty, or if a ratio has no meaning in it.
    """

    low: float
    high: float
    log: bool = False

    def __post_init__(self) -> None:
        if not self.low < self.high or (self.log and self.low <= 0):
            above = ", from above 0" if self.log else ""
            raise ValueError(f"{self.low}..{self.high} must rise{above}")

    @property
    def whole(self) -> bool:
        """Whether the range holds whole numbers only."""
        return isinstance(self.low, int) and isinstance(self.high, int)


Axis = Sequence[Any] | Range
Axes = Mapping[str, Axis]
Values = tuple[tuple[str, Any], ...]  # (key, value) for each axis


def read_axes(texts: Sequence[str]) -> dict[str, Axis]:
    """Read axes from `key.path=value,value`, with YAML values, or `key.path=low..high`, followed by
    ` log` if the numbers should be spread by ratio.

    `tower`, `loss`, `sampler` and `index` stand for their `.kind`. ConfigError if a text is no
    axis.
    """
    axes: dict[str, Axis] = {}
    for text in texts:
        key, equals, values = text.partition("=")
        try:
            axis = _range(values) or [_number(value) for value in load_yaml(f"[{values}]")]
        except (ConfigError, ValueError) as error:
            raise ConfigError(f"axis {text!r}: {error}") from error
        if not key or not equals or not axis:
            raise ConfigError(
                f"axis {text!r} is not KEY=VALUE,VALUE, such as loss=bce,sampled_softmax "
                "or train.epochs=2,4"
            )
        axes[key] = axis
    return axes


def _number(value: Any) -> Any:
    """The value with numbers such as 1e-3 as numbers, which YAML reads as text. ValueError on a
    day.
    """
    if isinstance(value, date):
        raise ValueError(
            f"{value} is a day, and all trials are judged on the same days: "
            "set split.test_day for the whole sweep"
        )
    try:
        return float(value) if isinstance(value, str) else value
    except ValueError:
        return value


def _range(text: str) -> Range | None:
    match = RANGE.fullmatch(text.strip())
    if match is None:
        return None
    low, high = (_bound(number) for number in match.groups()[:2])
    return Range(low, high, match[3] is not None)


def _bound(text: str) -> float:
    return int(text) if text.lstrip("+-").isdigit() else float(text)
