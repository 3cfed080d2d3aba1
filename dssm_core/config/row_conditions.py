"""Conditions on the rows of a log: data.positive, data.negative and split.relevant.

The values say what a column is: a column that is compared with numbers (or true and false) is a
column of numbers, one that is compared with texts is text.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable
from itertools import pairwise
from typing import Any

from dssm_core.columns import LABEL, TIME
from dssm_core.config.conditions import (
    Comparison,
    Condition,
    Every,
    Holds,
    Leaf,
    Not,
    OneOf,
    Some,
    Test,
    Value,
)
from dssm_core.errors import DataError

COMPARE: dict[str, Callable[[Any, Any], bool]] = {
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}


def read_row_condition(text: str) -> Condition:
    """The condition in a text. Raises DataError if it is none, or if it cannot be said of rows."""
    condition = Condition(text)
    if any(isinstance(leaf, Holds) for leaf in condition.leaves()):
        raise condition.error(
            "has `value in column`, which is for lists: write `column in [value]`"
        )
    numbers, texts = number_names(condition), text_names(condition)
    if both := sorted(numbers & texts):
        raise condition.error(f"compares {both[0]!r} with numbers and with texts: take one of them")
    if TIME in texts:
        raise condition.error(f"compares {TIME!r} with a text: it is a number, ms since 1970")
    return condition


def check_row_condition(text: str) -> str:
    """The text itself; ValueError if it is no condition on rows."""
    try:
        read_row_condition(text)
    except DataError as error:
        raise ValueError(str(error)) from error
    return text


def number_names(condition: Condition) -> set[str]:
    """The columns that the condition compares with numbers, or with true and false."""
    return {
        leaf.column
        for leaf in condition.leaves()
        if not all(isinstance(value, str) for value in _values(leaf))
    }


def text_names(condition: Condition) -> set[str]:
    """The columns that the condition compares with texts."""
    return {
        leaf.column
        for leaf in condition.leaves()
        if any(isinstance(value, str) for value in _values(leaf))
    }


def label_column(condition: Condition) -> str | None:
    """The column whose values data.labels lists: the only column that the condition names, or
    `label` among others. None if that is no column of numbers.
    """
    names = {leaf.column for leaf in condition.leaves()}
    name = names.pop() if len(names) == 1 else LABEL
    return name if name in number_names(condition) else None


def value_of_both(
    one: Condition, other: Condition, allowed: Iterable[float] | None
) -> tuple[str, Value] | None:
    """A column and a value of it with which a row meets both conditions; None if there is none, or
    if the conditions name several columns. allowed: the values that a column of numbers may have,
    if they are known.
    """
    names = {leaf.column for condition in (one, other) for leaf in condition.leaves()}
    numbers = number_names(one) | number_names(other)
    if len(names) != 1 or numbers & (text_names(one) | text_names(other)):
        return None
    if numbers and allowed is not None:
        values: list[Value] = list(allowed)
    else:
        leaves = (leaf for condition in (one, other) for leaf in condition.leaves())
        values = _examples({value for leaf in leaves for value in _values(leaf)}, bool(numbers))
    both = (value for value in values if _meets(one.tree, value) and _meets(other.tree, value))
    return next(((names.pop(), value) for value in both), None)


def _examples(constants: set[Value], numbers: bool) -> list[Value]:
    """The constants of conditions on one column, and other values. Between two numbers next to each
    other, and beyond all of them, a condition does not change.
    """
    values: list[Any] = sorted(constants)
    if not numbers:
        return [*values, "another text"]
    between = [(low + high) / 2 for low, high in pairwise(values)]
    beyond = [values[0] - 1, values[-1] + 1] if values else []
    return [*values, *between, *beyond]


def _meets(test: Test, value: Value) -> bool:
    """Whether a row with the value in the only column of a condition meets it."""
    if isinstance(test, Not):
        return not _meets(test.part, value)
    if isinstance(test, Every):
        return all(_meets(part, value) for part in test.parts)
    if isinstance(test, Some):
        return any(_meets(part, value) for part in test.parts)
    if isinstance(test, OneOf):
        return value in test.values
    return isinstance(test, Comparison) and COMPARE[test.operator](value, test.value)


def is_met_without_label(condition: Condition) -> bool:
    """Whether every row of a log without a column `label` meets the condition, because it is one
    comparison of that column: such a log has positives only.
    """
    return isinstance(condition.tree, Comparison) and condition.tree.column == LABEL


def _values(leaf: Leaf) -> tuple[Value, ...]:
    return (leaf.value,) if isinstance(leaf, Comparison | Holds) else leaf.values
