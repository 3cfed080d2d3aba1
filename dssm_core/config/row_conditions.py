"""Conditions on the rows of a log: data.positive and split.relevant.

The values say what a column is: a column that is compared with numbers (or true and false) is a
column of numbers, one that is compared with texts is text.
"""

from __future__ import annotations

from dssm_core.columns import LABEL, TIME
from dssm_core.config.conditions import Comparison, Condition, Holds, Leaf, Value
from dssm_core.errors import DataError


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


def is_met_without_label(condition: Condition) -> bool:
    """Whether every row of a log without a column `label` meets the condition, because it is one
    comparison of that column: such a log has positives only.
    """
    return isinstance(condition.tree, Comparison) and condition.tree.column == LABEL


def _values(leaf: Leaf) -> tuple[Value, ...]:
    return (leaf.value,) if isinstance(leaf, Comparison | Holds) else leaf.values
