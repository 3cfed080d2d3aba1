"""Ids of users and items as text."""

from __future__ import annotations

from dssm_core.data.sql import literal

_WHOLE = r"^(0|-?[1-9][0-9]*)\.0+$"  # an integer as a float or decimal column is written


def id_text(source: str, kind: str) -> str:
    """SQL: an id as trimmed text, NULL when empty, NaN or infinite.

    A whole number is written without decimals: 7.0, '7.0' and 7.0000000000 (a decimal, as Spark
    writes it) become '7'. Text such as 007, 1.5 or 1.0.0 stays as it is.
    """
    value = f"CAST({source} AS VARCHAR)"
    if kind in ("DOUBLE", "FLOAT"):
        digits = f"CAST(TRY_CAST({source} AS HUGEINT) AS VARCHAR)"
        whole = f"CASE WHEN {source} = floor({source}) THEN {digits} END"
        return f"CASE WHEN isfinite({source}) THEN coalesce({whole}, {value}) END"
    if kind.startswith("DECIMAL") and not kind.endswith(",0)"):
        return f"rtrim(rtrim({value}, '0'), '.')"
    return f"nullif(regexp_replace(trim({value}), {literal(_WHOLE)}, '\\1'), '')"
