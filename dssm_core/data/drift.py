"""Drift: how far each day of the window is from the days before it, in its number of rows, its new
items and the distributions of feature columns (divergence.py).
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from duckdb import DuckDBPyConnection

from dssm_core.aliases import JSON, Doubles
from dssm_core.columns import INTERNAL, ITEM, ITEMS, TIME, USER, USERS
from dssm_core.config import Config, Feature
from dssm_core.data.database import one_row
from dssm_core.data.divergence import absolute_change, divergence, divergences, relative_change
from dssm_core.data.splits.days import Days
from dssm_core.data.sql import identifier, literal, parquet
from dssm_core.runs.layout import table_file

FILE = "drift.json"
VOLUME = "volume"  # the measures, as validation.drift names them
NEW_ITEMS = "new_items"
FEATURES = "features"
TOP = 50  # the most frequent values of a column are compared, all other values count as one
REST = "(all others)"
MISSING = "(none)"
DAY = f"{INTERNAL}day"  # a row's day in the window, 0 is the first
N = f"{INTERNAL}n"  # number of rows of the log that a row counts
DECILES = [decile / 10 for decile in range(1, 10)]
COUNTED_KINDS = ("categorical", "multi", "numeric")
COLUMNS_SHOWN = 3


@dataclass(frozen=True)
class Drift:
    """The days of a window, as `drift.json` holds them. A value is None if there is no day before
    to compare with.

    days: ISO dates. rows: number of rows of each day. new_items: share of a day's rows whose item
    the day before did not have. changes: distance of each day from the days before it, by measure
    (`volume`, `new_items`, `features.COLUMN`). profile: share of each value in the whole window, by
    categorical or multi-valued column.
    """

    days: list[str]
    rows: list[int]
    new_items: list[float | None]
    changes: dict[str, list[float | None]]
    profile: dict[str, dict[str, float]]


def measure(con: DuckDBPyConnection, config: Config, split: Days, folder: Path) -> Drift:
    """Measure the view `log` (see validate.py) with one aggregate a column. `folder` holds
    users.parquet and items.parquet.
    """
    days = len(split.days)
    _create_dated(con, split.edges_ms(config.data.zone))
    rows = _by_day(con, f"SELECT {DAY}, count(*) FROM dated GROUP BY 1", days, 0)
    new = _by_day(con, _NEW_ITEMS, days, math.nan)
    new[0] = math.nan  # the day before it is not in the window
    changes = {VOLUME: relative_change(rows), NEW_ITEMS: absolute_change(new)}
    profile = {}
    for feature, source, expression in _columns(con, config, folder):
        values, counts = _counts(con, source, expression, days)  # [V], [D, V]
        changes[f"{FEATURES}.{feature.column}"] = divergences(counts)
        if feature.kind != "numeric" and counts.sum():
            shares = (counts.sum(0) / counts.sum()).round(6).tolist()
            profile[feature.column] = dict(zip(values, shares, strict=True))
    return Drift(
        days=[day.isoformat() for day in split.days],
        rows=rows.astype(int).tolist(),
        new_items=_plain(new),
        changes={name: _plain(change) for name, change in changes.items()},
        profile=profile,
    )


def save(measured: Drift, folder: Path) -> None:
    """Write `drift.json`."""
    (folder / FILE).write_text(
        json.dumps(asdict(measured), allow_nan=False, ensure_ascii=False), encoding="utf-8"
    )


def load(folder: Path) -> Drift | None:
    """Read what `save` wrote; None if there is no file because the split has no days."""
    file = folder / FILE
    return Drift(**json.loads(file.read_bytes())) if file.is_file() else None


def compare_windows(ours: Drift, theirs: Drift) -> JSON:
    """Compare two windows: `volume`, the relative change of the number of rows, and `columns`,
    pairs [column, divergence] of the columns that both have.
    """
    shared = [name for name in ours.profile if name in theirs.profile]
    columns = [
        [name, round(_profile_divergence(ours.profile[name], theirs.profile[name]), 4)]
        for name in shared
    ]
    before = sum(theirs.rows)
    return {VOLUME: sum(ours.rows) / before - 1 if before else None, "columns": columns}


def describe_change(since: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The change of a window since the champion's window as (what, value) pairs for people; what
    could not be compared is left out.
    """
    rows = []
    if (volume := since.get(VOLUME)) is not None:
        rows.append(("rows of the window against the champion's", f"{volume:+.1%}"))
    if (unknown := since.get("unknown_items")) is not None:
        rows.append(("clicks on items the champion does not know", f"{unknown:.1%}"))
    largest = sorted(since.get("columns", []), key=lambda pair: -pair[1])[:COLUMNS_SHOWN]
    return rows + [
        (f"drift of {column.replace('|', '/')} since the champion's window, bits", f"{bits:.3f}")
        for column, bits in largest
    ]


def _profile_divergence(ours: Mapping[str, float], theirs: Mapping[str, float]) -> float:
    values = sorted({*ours, *theirs})
    left = np.array([ours.get(value, 0.0) for value in values])
    right = np.array([theirs.get(value, 0.0) for value in values])
    return float(divergence(left, right))


def _create_dated(con: DuckDBPyConnection, edges_ms: list[int]) -> None:
    """Create the view `dated`, the log's rows in the window with DAY, and the table `items_by_day`,
    the number of each item's rows by DAY: far fewer rows than the log has.
    """
    con.execute(
        f"CREATE OR REPLACE TABLE edges AS SELECT unnest(?) AS start, unnest(?) AS {DAY}",
        [edges_ms[:-1], [*range(len(edges_ms) - 1)]],
    )
    con.execute(
        f"CREATE OR REPLACE VIEW dated AS SELECT edges.{DAY}, log.* FROM log"
        f" ASOF JOIN edges ON log.{TIME} >= edges.start WHERE log.{TIME} < {edges_ms[-1]}"
    )
    con.execute(
        f"CREATE OR REPLACE TABLE items_by_day AS SELECT {DAY}, {ITEM}, count(*) AS {N} FROM dated"
        f" WHERE {ITEM} IS NOT NULL GROUP BY ALL"
    )


def _by_day(con: DuckDBPyConnection, query: str, days: int, empty: float) -> Doubles:
    """The values of a query's (day, value) rows; `empty` for days without a row. → [days]"""
    values = np.full(days, empty)
    for day, value in con.execute(query).fetchall():
        values[day] = value
    return values


_NEW_ITEMS = f"""
SELECT today.{DAY},
    coalesce(sum(today.{N}) FILTER (WHERE before.{ITEM} IS NULL), 0) / sum(today.{N})
FROM items_by_day AS today
LEFT JOIN items_by_day AS before ON before.{ITEM} = today.{ITEM} AND before.{DAY} = today.{DAY} - 1
GROUP BY 1
"""


def _columns(
    con: DuckDBPyConnection, config: Config, folder: Path
) -> Iterator[tuple[Feature, str, str]]:
    """(feature, SQL of rows with DAY and their number N, SQL of the value) of each column whose
    values can be counted, which text and target means cannot.
    """
    columns = config.features.columns
    rows = f"(SELECT *, 1 AS {N} FROM dated)"
    sides = (
        (columns.context, None, "dated", rows),
        (columns.user, USER, USERS, rows),
        (columns.item, ITEM, ITEMS, "items_by_day"),
    )
    for features, key, table, counted in sides:
        file = folder / table_file(table)
        if key and not file.is_file():
            continue
        read = parquet(file)
        sample = con.sql(f"SELECT * FROM {read if key else 'dated'} LIMIT 0")
        kinds = dict(zip(sample.columns, map(str, sample.types), strict=True))
        for feature in features:
            if feature.column in kinds and feature.kind in COUNTED_KINDS:
                column = identifier(feature.column)
                both = ", ".join(dict.fromkeys([identifier(key or ""), column]))
                own = f"(SELECT DISTINCT ON ({key}) {both} FROM {read}) AS own"
                source = f"{counted} JOIN {own} USING ({key})" if key else counted
                value = f"{'own.' if key else ''}{column}"
                listed = kinds[feature.column].endswith("[]")
                yield feature, source, _value(con, feature, value, read, listed)


def _value(con: DuckDBPyConnection, feature: Feature, value: str, read: str, listed: bool) -> str:
    """SQL: a value as text; each value of a multi-valued cell; for a number its decile in the
    table's rows.
    """
    if feature.kind == "categorical":
        return f"CAST({value} AS VARCHAR)"
    if feature.kind == "multi":
        cell = f"coalesce(CAST({value} AS VARCHAR), '')"
        values = value if listed else f"string_split({cell}, {literal(feature.separator)})"
        return f"CAST(unnest({values}) AS VARCHAR)"
    number = f"CAST({identifier(feature.column)} AS DOUBLE)"
    (deciles,) = one_row(con, f"SELECT quantile_cont({number}, {DECILES}) FROM {read}")
    edges = [edge for edge in dict.fromkeys(deciles or []) if math.isfinite(edge)]
    above = " + ".join(f"CAST({value} > {edge!r} AS INTEGER)" for edge in edges) or "0"
    return f"CASE WHEN {value} IS NOT NULL THEN CAST({above} AS VARCHAR) END"


def _counts(
    con: DuckDBPyConnection, source: str, expression: str, days: int
) -> tuple[list[str], Doubles]:
    """The most frequent values and REST, and how often each day has each. → V values, [D, V]"""
    query = f"""
    WITH rows AS (SELECT {DAY}, {expression} AS value, {N} AS n FROM {source}),
    named AS (SELECT {DAY}, coalesce(nullif(value, ''), {literal(MISSING)}) AS value, n FROM rows),
    counted AS (SELECT {DAY}, value, sum(n) AS n FROM named GROUP BY ALL),
    top AS (SELECT value FROM counted GROUP BY value ORDER BY sum(n) DESC, value LIMIT {TOP}),
    merged AS (
        SELECT {DAY}, n,
            CASE WHEN value IN (SELECT value FROM top) THEN value ELSE {literal(REST)} END AS value
        FROM counted
    )
    SELECT {DAY}, value, sum(n) AS n FROM merged GROUP BY ALL ORDER BY value, {DAY}
    """
    rows = con.sql(query).to_arrow_table().to_pandas()
    values, codes = np.unique(rows["value"].to_numpy(dtype=object).astype(str), return_inverse=True)
    counts = np.zeros((days, len(values)))
    day = rows[DAY].to_numpy(dtype=np.int64)
    np.add.at(counts, (day, codes), rows["n"].to_numpy(dtype=np.float64))
    return [str(value) for value in values], counts


def _plain(values: Doubles) -> list[float | None]:
    return [round(value, 6) if math.isfinite(value) else None for value in values.tolist()]
