"""Conditions on the columns of items, such as `category in ['news', 'sport'] and price < 20`.

The text is parsed as a Python expression and only comparisons, `in`, `and`, `or` and `not` are
accepted: nothing is evaluated.
"""

from __future__ import annotations

import ast
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import reduce
from operator import and_, or_
from typing import TYPE_CHECKING, Any

from typing_extensions import TypeIs

from dssm_core.errors import DataError, shorten
from dssm_core.families import did_you_mean

if TYPE_CHECKING:  # Airflow's parser reads configs, and must not load numpy and pandas
    import pandas as pd

    from dssm_core.aliases import Bools

MAX_LENGTH = 10_000  # characters of one condition
MAX_DEPTH = 30  # nested parentheses, `and`, `or` and `not`
EXAMPLE = "category in ['news', 'sport'] and price < 20"

COMPARE: dict[type[ast.cmpop], str] = {  # names of numpy's functions
    ast.Eq: "equal",
    ast.NotEq: "not_equal",
    ast.Lt: "less",
    ast.LtE: "less_equal",
    ast.Gt: "greater",
    ast.GtE: "greater_equal",
}
MIRRORED: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.Gt,
    ast.LtE: ast.GtE,
    ast.Gt: ast.Lt,
    ast.GtE: ast.LtE,
}
CONSTANTS = {"true": True, "false": False}


class Condition:
    """A parsed condition. Raises DataError if the text is not a condition."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.tree = _parse(text)

    def mask(self, items: Mapping[str, pd.Series[Any]]) -> Bools:
        """Which items meet the condition. An item without a value meets no comparison. → [N]

        items: columns by name, [N] each. Raises DataError for another column, or a value that
        cannot be compared with the column's type.
        """
        return self._mask(self.tree, items)

    def _mask(self, node: ast.expr, items: Mapping[str, pd.Series[Any]]) -> Bools:
        if isinstance(node, ast.BoolOp):
            combine = and_ if isinstance(node.op, ast.And) else or_
            return reduce(combine, (self._mask(part, items) for part in node.values))
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
            return ~self._mask(node.operand, items)
        if isinstance(node, ast.Name):  # a column of true and false
            return self._compare(items, node, ast.Eq(), ast.Constant(True))
        if isinstance(node, ast.Compare):
            sides = [node.left, *node.comparators]
            parts = zip(sides, node.ops, sides[1:], strict=False)
            return reduce(and_, (self._compare(items, *part) for part in parts))
        raise self._error("is not a comparison")

    def _compare(
        self,
        items: Mapping[str, pd.Series[Any]],
        left: ast.expr,
        operator: ast.cmpop,
        right: ast.expr,
    ) -> Bools:
        import numpy as np

        if isinstance(operator, ast.In | ast.NotIn):
            mask = self._member(items, left, right)
            return mask if isinstance(operator, ast.In) else ~mask
        if _is_column(right) and not _is_column(left):
            mirrored = MIRRORED.get(type(operator), type(operator))()
            return self._compare(items, right, mirrored, left)
        if not _is_column(left) or type(operator) not in COMPARE:
            raise self._error("does not compare a column with a value")
        column = self._column(items, left)
        value = self._like(column, self._value(right), left.id)
        mask = np.zeros(len(column), dtype=np.bool_)
        present = column.notna().to_numpy()
        if isinstance(value, bool) and type(operator) not in (ast.Eq, ast.NotEq):
            raise self._error("compares true or false by size")
        compare = getattr(np, COMPARE[type(operator)])
        mask[present] = compare(column[present].to_numpy(), value)
        return mask

    def _member(
        self, items: Mapping[str, pd.Series[Any]], left: ast.expr, right: ast.expr
    ) -> Bools:
        """`column in [values]`, or `value in column` for a column of lists."""
        import numpy as np

        if _is_column(left) and isinstance(right, ast.List | ast.Tuple | ast.Set):
            column = self._column(items, left)
            values = [self._like(column, self._value(part), left.id) for part in right.elts]
            return np.asarray(column.isin(values), dtype=np.bool_)
        if not _is_column(right):
            raise self._error("has an `in` without a column")
        column = self._column(items, right)
        value = self._value(left)
        flat = column.reset_index(drop=True).explode().dropna()
        mask = np.zeros(len(column), dtype=np.bool_)
        mask[flat.index[(flat == self._like(flat, value, right.id)).to_numpy()]] = True
        return mask

    def _column(self, items: Mapping[str, pd.Series[Any]], node: Any) -> pd.Series[Any]:
        if node.id not in items:
            known = list(items)
            hint = did_you_mean(node.id, known) if known else "the model has no item columns"
            raise DataError(
                f"condition {shorten(self.text)!r} names {node.id!r}, which is no item column of"
                f" the model: {hint}"
            )
        return items[node.id]

    def _value(self, node: ast.expr) -> Any:
        try:
            value = ast.literal_eval(node)
        except ValueError:
            value = CONSTANTS.get(node.id) if isinstance(node, ast.Name) else None
        if not isinstance(value, bool | int | float | str):
            raise self._error("compares with something other than a number, a text, true or false")
        return value

    def _like(self, column: pd.Series[Any], value: Any, name: str) -> Any:
        """The value in the type of the column; a time as text becomes ms."""
        import pandas as pd

        dtype = column.dtype
        if pd.api.types.is_bool_dtype(dtype):
            wanted, fits = "true or false", isinstance(value, bool)
        elif pd.api.types.is_numeric_dtype(dtype):
            value = time_ms(value) if isinstance(value, str) else value
            wanted, fits = "a number or a time", not isinstance(value, bool | None)
        else:
            value = str(value) if isinstance(value, int) and value is not True else value
            wanted, fits = "a text", isinstance(value, str)
        if not fits:
            raise self._error(f"compares {name!r} with another type: give {wanted}")
        return value

    def _error(self, problem: str) -> DataError:
        return DataError(f"condition {shorten(self.text)!r} {problem}. An example: `{EXAMPLE}`")


def time_ms(text: str) -> int | None:
    """A time in ISO form (in UTC if it has no zone) as ms since 1970; None if it is none."""
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        return None
    time = time if time.tzinfo else time.replace(tzinfo=UTC)
    return round(time.timestamp() * 1000)


def _is_column(node: ast.expr) -> TypeIs[ast.Name]:
    return isinstance(node, ast.Name) and node.id not in CONSTANTS


def _parse(text: str) -> ast.expr:
    if len(text) > MAX_LENGTH:
        raise DataError(
            f"condition {shorten(text)!r} has {len(text):,} characters: give {MAX_LENGTH:,} or"
            " fewer"
        )
    try:
        tree = ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise DataError(
            f"condition {shorten(text)!r} is not an expression: write, for example, `{EXAMPLE}`"
        ) from error
    if _depth(tree) > MAX_DEPTH:
        raise DataError(
            f"condition {shorten(text)!r} is nested more than {MAX_DEPTH} times: write a"
            " simpler one"
        )
    return tree


def _depth(tree: ast.AST) -> int:
    depth = 0
    level: list[ast.AST] = [tree]
    while level:
        depth += 1
        level = [child for node in level for child in ast.iter_child_nodes(node)]
    return depth
