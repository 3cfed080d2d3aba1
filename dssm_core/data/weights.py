"""The weight of an interaction in training (data.weight), as SQL."""

from __future__ import annotations

from dssm_core.config import Weight
from dssm_core.data.sources.ids import id_text
from dssm_core.data.sql import identifier, literal


def weight_sql(weight: Weight, table: str = "") -> str:
    """SQL: the weight of a row as FLOAT; NULL where its cell gives none. table: a prefix of the
    column's name, such as `log.`.
    """
    cell = table + identifier(weight.column)
    if weight.values is not None:
        cases = " ".join(
            f"WHEN {_canonical(literal(text))} THEN {number!r}"
            for text, number in weight.values.items()
        )
        return f"CAST(CASE {_canonical(cell)} {cases} END AS FLOAT)"
    number = f"TRY_CAST({cell} AS DOUBLE)"
    taken = f"ln(1 + greatest({number}, 0))" if weight.log else number
    clipped = f"least(greatest({weight.scale!r} * {taken}, {weight.min!r}), {weight.max!r})"
    return f"CASE WHEN isfinite({number}) AND {number} >= 0 THEN CAST({clipped} AS FLOAT) END"


def _canonical(value: str) -> str:
    """SQL: a value as text as ids are written: 1, 1.0 and ' 1' are the same."""
    return id_text(value, "VARCHAR")


def unweighted_sql(weight: Weight, positive: str) -> str:
    """SQL: the cell, as text, of a positive that has no weight; NULL for all other rows. positive:
    SQL, 1 for positives.
    """
    text = f"coalesce(nullif(trim(CAST({identifier(weight.column)} AS VARCHAR)), ''), 'nothing')"
    return f"CASE WHEN {positive} = 1 AND ({weight_sql(weight)}) IS NULL THEN {text} END"
