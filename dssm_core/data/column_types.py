"""Whether the type of a column suits what the config uses it for."""

from __future__ import annotations

from collections.abc import Iterator

from dssm_core.columns import INTERACTIONS, ITEMS, USERS
from dssm_core.config import Config
from dssm_core.config.log_columns import number_columns
from dssm_core.data.ingest import IngestedTables
from dssm_core.data.vectors import ARROW_LIST

NUMBERS = ("int", "uint", "float", "halffloat", "double", "bool", "decimal", "string")
LISTS = ("list<", "large_list<", "fixed_size_list<")
NESTED = (*LISTS, "struct<", "map<")
ADVICE = {
    "categorical": "one value a cell: take kind multi for a list, or another column",
    "multi": "text or a list of values in a cell: flatten it in the log, or take another column",
    "text": "text: take kind multi for a list, or another column",
}


def type_problems(config: Config, tables: IngestedTables) -> list[str]:
    """A sentence for each column whose type does not suit what the config uses it for."""
    numbers = number_columns(config)
    problems = [
        f"{table}: column {name!r} has the type {tables.types[table][name]}, but the config uses it"
        " as a number: convert it in the log, or take kind categorical"
        for table in tables
        for name in (*sorted(numbers), *config.validation.ranges)
        if not tables.types[table].get(name, "int").startswith(NUMBERS)
    ]
    problems += _weight_problems(config, tables)
    return list(dict.fromkeys([*problems, *_feature_problems(config, tables)]))


def _weight_problems(config: Config, tables: IngestedTables) -> Iterator[str]:
    weight = config.data.weight
    kind = tables.types[INTERACTIONS].get(weight.column) if weight else None
    if weight is None or kind is None:
        return
    if weight.values is None and not kind.startswith(NUMBERS):
        yield (
            f"interactions: column {weight.column!r} has the type {kind}, but data.weight needs"
            " numbers: convert it in the log, or give data.weight.values"
        )
    elif _is_nested(kind, may_be_list=False):
        yield (
            f"interactions: column {weight.column!r} has the type {kind}, but data.weight.values"
            " needs one value a cell: take another column"
        )


def _feature_problems(config: Config, tables: IngestedTables) -> Iterator[str]:
    columns = config.features.columns
    sides = ((INTERACTIONS, columns.context), (USERS, columns.user), (ITEMS, columns.item))
    for table, features in sides:
        for feature in features if table in tables else ():
            kind = tables.types[table].get(feature.column, "")
            if feature.kind == "vector" and kind not in ("", ARROW_LIST):
                yield (
                    f"{table}: column {feature.column!r} has the type {kind}, but kind vector needs"
                    " a list of numbers in a cell, or text such as [0.1, -0.2]: take another column"
                )
            if feature.kind in ADVICE and _is_nested(kind, feature.kind == "multi"):
                yield (
                    f"{table}: column {feature.column!r} has the type {kind}, but kind"
                    f" {feature.kind} needs {ADVICE[feature.kind]}"
                )


def _is_nested(kind: str, may_be_list: bool) -> bool:
    """Whether a cell holds other values, beyond a list of single ones if that is allowed."""
    inner = kind.partition("<")[2] if may_be_list and kind.startswith(LISTS) else kind
    return any(word in inner for word in NESTED)
