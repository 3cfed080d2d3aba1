"""Conditions on columns, such as `category in ['news', 'sport'] and price < 20`: one grammar for
filters of items (serving.filters) and for the rows of a log (data.positive, split.relevant).

The text is parsed as a Python expression and only comparisons, `in`, `and`, `or` and `not` are
accepted: nothing is evaluated.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

from typing_extensions import TypeIs

from dssm_core.errors import DataError, shorten

MAX_LENGTH = 10_000  # characters of one condition
MAX_DEPTH = 30  # nested parentheses, `and`, `or` and `not`
MAX_WHOLE = 2**63  # of a whole number
EXAMPLE = "category in ['news', 'sport'] and price < 20"
# One comparison with a number is read without Python's grammar, for columns such as `class`
PLAIN = re.compile(
    r"\s*([A-Za-z_][A-Za-z0-9_]*)\s*(==|!=|>=|<=|>|<)\s*([+-]?[0-9]{1,15}(?:\.[0-9]{1,15})?)\s*"
)
OPERATORS: dict[type[ast.cmpop], str] = {
    ast.Eq: "==",
    ast.NotEq: "!=",
    ast.Lt: "<",
    ast.LtE: "<=",
    ast.Gt: ">",
    ast.GtE: ">=",
}
MIRRORED = {"<": ">", "<=": ">=", ">": "<", ">=": "<="}
CONSTANTS = {"true": True, "false": False}
Value = bool | int | float | str


@dataclass(frozen=True)
class Comparison:
    """`column operator value`. A missing value meets no comparison."""

    column: str
    operator: str
    value: Value


@dataclass(frozen=True)
class OneOf:
    """`column in [values]`."""

    column: str
    values: tuple[Value, ...]


@dataclass(frozen=True)
class Holds:
    """`value in column`, for a column of lists."""

    column: str
    value: Value


@dataclass(frozen=True)
class Not:
    """True where `part` is not."""

    part: Test


@dataclass(frozen=True)
class Every:
    """True where all parts are (`and`)."""

    parts: tuple[Test, ...]


@dataclass(frozen=True)
class Some:
    """True where one of the parts is (`or`)."""

    parts: tuple[Test, ...]


Leaf = Comparison | OneOf | Holds
Test = Leaf | Not | Every | Some


class Condition:
    """A parsed condition: its text and its tree. Raises DataError if the text is none."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.tree = self._plain() or self._test(_parse(text))

    def leaves(self) -> Iterator[Leaf]:
        """The comparisons, in the order of the text."""
        yield from _leaves(self.tree)

    def error(self, problem: str) -> DataError:
        """The error of a condition that cannot be used, with an example."""
        return DataError(
            f"condition {shorten(self.text)!r} {problem}. Write it, for example, as `{EXAMPLE}`"
        )

    def _plain(self) -> Comparison | None:
        match = PLAIN.fullmatch(self.text)
        if not match or match[1] in CONSTANTS:
            return None
        return Comparison(match[1], match[2], float(match[3]) if "." in match[3] else int(match[3]))

    def _test(self, node: ast.expr) -> Test:
        if isinstance(node, ast.BoolOp):
            parts = tuple(map(self._test, node.values))
            return Every(parts) if isinstance(node.op, ast.And) else Some(parts)
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
            return Not(self._test(node.operand))
        if isinstance(node, ast.Name):  # a column of true and false
            return self._comparison(node, ast.Eq(), ast.Constant(True))
        if isinstance(node, ast.Compare):
            sides = [node.left, *node.comparators]
            triples = zip(sides, node.ops, sides[1:], strict=False)
            parts = tuple(self._comparison(*triple) for triple in triples)
            return parts[0] if len(parts) == 1 else Every(parts)
        raise self.error("is not a comparison")

    def _comparison(self, left: ast.expr, operator: ast.cmpop, right: ast.expr) -> Test:
        if isinstance(operator, ast.In):
            return self._member(left, right)
        if isinstance(operator, ast.NotIn):
            return Not(self._member(left, right))
        sign = OPERATORS.get(type(operator))
        if sign and _is_column(right) and not _is_column(left):
            left, right, sign = right, left, MIRRORED.get(sign, sign)
        if not sign or not _is_column(left):
            raise self.error("does not compare a column with a value")
        value = self._value(right)
        if isinstance(value, bool) and sign not in ("==", "!="):
            raise self.error("compares true or false by size")
        return Comparison(left.id, sign, value)

    def _member(self, left: ast.expr, right: ast.expr) -> Test:
        if _is_column(left) and isinstance(right, ast.List | ast.Tuple | ast.Set):
            return OneOf(left.id, tuple(map(self._value, right.elts)))
        if not _is_column(right):
            raise self.error("has an `in` without a column")
        return Holds(right.id, self._value(left))

    def _value(self, node: ast.expr) -> Value:
        try:
            value = ast.literal_eval(node)
        except (ValueError, TypeError):
            value = CONSTANTS.get(node.id) if isinstance(node, ast.Name) else None
        if not isinstance(value, bool | int | float | str):
            raise self.error("compares with something other than a number, a text, true or false")
        if isinstance(value, str) and not _is_encodable(value):
            raise self.error("compares with a text that has a NUL or half of a character")
        if not isinstance(value, str) and not abs(value) < MAX_WHOLE:
            raise self.error("compares with a number beyond 63 bits")
        return value


def time_ms(text: str) -> int | None:
    """A time in ISO form (in UTC if it has no zone) as ms since 1970; None if it is none."""
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        return None
    time = time if time.tzinfo else time.replace(tzinfo=UTC)
    return round(time.timestamp() * 1000)


def _leaves(test: Test) -> Iterator[Leaf]:
    if isinstance(test, Not):
        yield from _leaves(test.part)
    elif isinstance(test, Every | Some):
        for part in test.parts:
            yield from _leaves(part)
    else:
        yield test


def _is_column(node: ast.expr) -> TypeIs[ast.Name]:
    return isinstance(node, ast.Name) and node.id not in CONSTANTS


def _is_encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return "\0" not in text


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
