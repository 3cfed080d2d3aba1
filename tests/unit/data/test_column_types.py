"""A column's type is checked against what the config uses it for; a misspelt label is asked for."""

from __future__ import annotations

from pathlib import Path

import duckdb
import pytest

from dssm_core.columns import INTERACTIONS, ITEM, ITEMS, LABEL, TIME, USER
from dssm_core.config import Config, parse_config
from dssm_core.data.column_types import type_problems
from dssm_core.data.ingest import IngestedTables, parse_numbers
from dssm_core.data.rules import existence_rules

OWN = {USER: "string", ITEM: "string", TIME: "int64"}


def config(kind: str = "categorical", **data: object) -> Config:
    return parse_config(
        {
            "name": "t",
            "data": {"source": {"kind": "synthetic"}, **data},
            "split": {"test_day": "2024-03-03"},
            "features": {"columns": {"item": [{"column": "x", "kind": kind}]}},
        }
    )


@pytest.mark.parametrize(
    ("values", "type_", "says"),
    [
        (None, "date32[day]", "but data.weight needs numbers"),
        (None, "list<element: double>", "but data.weight needs numbers"),
        ({"a": 1}, "list<element: string>", "but data.weight.values needs one value a cell"),
        ({"a": 1}, "struct<a: int64>", "but data.weight.values needs one value a cell"),
    ],
)
def test_a_weight_needs_numbers_or_single_values(values: object, type_: str, says: str) -> None:
    made = config(weight={"column": "w", "values": values})
    (problem,) = type_problems(made, tables("string", w=type_))
    assert says in problem
    for suits in ("string", "int64", "double", "bool", "decimal128(9, 2)"):
        assert type_problems(made, tables("string", w=suits)) == []


def tables(kind: str, **columns: str) -> IngestedTables:
    items = {ITEM: "string", "x": kind}
    return IngestedTables(Path(), {INTERACTIONS: OWN | columns, ITEMS: items})


@pytest.mark.parametrize(
    ("kind", "type_"),
    [
        *[("categorical", type_) for type_ in ("string", "int64", "double", "bool", "date32[day]")],
        *[("multi", type_) for type_ in ("string", "list<element: string>", "list<item: int64>")],
        *[("numeric", type_) for type_ in ("string", "int8", "float", "decimal128(9, 2)", "bool")],
        ("text", "string"),
    ],
)
def test_types_that_suit_are_accepted(kind: str, type_: str) -> None:
    assert type_problems(config(kind), tables(type_)) == []


@pytest.mark.parametrize(
    ("kind", "type_", "says"),
    [
        ("categorical", "list<element: string>", "take kind multi for a list"),
        ("categorical", "struct<a: int64>", "one value a cell"),
        ("categorical", "map<string, int64>", "one value a cell"),
        ("text", "list<element: string>", "take kind multi for a list"),
        ("multi", "list<element: list<element: string>>", "flatten it"),
        ("multi", "list<element: struct<a: int64>>", "flatten it"),
        ("multi", "struct<a: int64>", "flatten it"),
        ("numeric", "date32[day]", "as a number: convert it in the log"),
        ("numeric", "timestamp[us]", "as a number: convert it in the log"),
        ("numeric", "list<element: double>", "as a number: convert it in the log"),
    ],
)
def test_types_that_do_not_suit_are_named(kind: str, type_: str, says: str) -> None:
    (problem,) = type_problems(config(kind), tables(type_))
    assert problem.startswith(f"items: column 'x' has the type {type_}, but ")
    assert says in problem


def test_the_column_of_positives_must_be_a_number() -> None:
    (problem,) = type_problems(config(positive="y > 1"), tables("string", y="timestamp[us]"))
    assert problem.startswith("interactions: column 'y' has the type timestamp[us], but the config")


def test_booleans_and_decimals_become_numbers() -> None:
    with duckdb.connect() as con:
        relation = con.sql("SELECT true AS a, 1.50 AS b, [true] AS c, 7 AS d, true AS e")
        numbers = parse_numbers(relation, {"a", "b", "c", "d"})
        assert list(map(str, numbers.types)) == [
            *("TINYINT", "DOUBLE", "BOOLEAN[]", "INTEGER", "BOOLEAN")
        ]
        assert numbers.fetchall() == [(1, 1.5, [True], 7, True)]


@pytest.mark.parametrize("name", ["Label", "LABEL", "lable", "labels", "labe"])
def test_a_misspelt_label_is_asked_for(name: str) -> None:
    (rule,) = existence_rules(config(), INTERACTIONS, tables("string", **{name: "int64"}))
    assert (rule.column, rule.fix) == (LABEL, f"did you mean {name!r}?")


@pytest.mark.parametrize("name", ["clicked", "table", "level", "rating"])
def test_a_log_without_a_label_has_positives_only(name: str) -> None:
    assert existence_rules(config(), INTERACTIONS, tables("string", **{name: "int64"})) == []


def test_a_column_in_another_case_is_asked_for() -> None:
    (rule,) = existence_rules(
        config(positive="Amount > 1"), INTERACTIONS, tables("string", amount="double")
    )
    assert (rule.column, rule.fix) == ("Amount", "did you mean 'amount'?")
