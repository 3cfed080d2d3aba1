"""How far each day of the window lies from the days before it: volume, new items, the values of
feature columns.

A column's distance is the Jensen-Shannon divergence in bits (Lin 1991, "Divergence measures based
on the Shannon entropy"): 0 for equal distributions, 1 for such that share no value; unlike the
population stability index it needs no care for values that one side lacks.
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
from scipy.special import rel_entr

from dssm_core.aliases import JSON, Doubles
from dssm_core.columns import ITEM, TIME, USER
from dssm_core.config import Config, Feature
from dssm_core.data.database import one_row
from dssm_core.data.splits.days import Days
from dssm_core.data.sql import identifier, literal
from dssm_core.runs.layout import table_file

FILE = "drift.json"
VOLUME, NEW_ITEMS, FEATURES = "volume", "new_items", "features"  # as validation.drift names them
TOP = 50  # values of a column that are told apart; the rest is one more
CHANCE = 0.02  # bits that chance alone may make of a column's divergence
REST, MISSING = "(all others)", "(none)"
DECILES = [place / 10 for place in range(1, 10)]


@dataclass(frozen=True)
class Drift:
    """What a window's days are like, as `drift.json` holds it; None where there is no day before to
    compare with.

    days: ISO; rows: of each day; new_items: share of a day's rows whose item the day before did not
    have; changes: by measure (`volume`, `new_items`, `features.COLUMN`) each day's distance from
    the days before it; profile: by categorical or multi-valued column the share of each value in
    the whole window.
    """

    days: list[str]
    rows: list[int]
    new_items: list[float | None]
    changes: dict[str, list[float | None]]
    profile: dict[str, dict[str, float]]


def measure(con: DuckDBPyConnection, config: Config, split: Days, folder: Path) -> Drift:
    """Measure the view `log` (see validate) by one aggregate a column; users.parquet and
    items.parquet lie in `folder`.
    """
    days = len(split.days)
    _date(con, split.edges_ms(config.data.zone))
    rows = _by_day(con, "SELECT _day, count(*) FROM dated GROUP BY 1", days, 0)
    new = _by_day(con, _NEW_ITEMS, days, math.nan)
    new[0] = math.nan  # the day before it is not in the window
    changes, profile = {VOLUME: relative(rows), NEW_ITEMS: absolute(new)}, {}
    for feature, source, expression in _columns(con, config, folder):
        values, counts = _counts(con, source, expression, days)  # [V], [D, V]
        changes[f"{FEATURES}.{feature.column}"] = divergences(counts)
        if feature.kind != "numeric" and counts.sum():
            profile[feature.column] = dict(
                zip(values, (counts.sum(0) / counts.sum()).round(6).tolist(), strict=True)
            )
    told = {name: _plain(change) for name, change in changes.items()}
    return Drift(
        [day.isoformat() for day in split.days],
        rows.astype(int).tolist(),
        _plain(new),
        told,
        profile,
    )


def save(found: Drift, folder: Path) -> None:
    """Write `drift.json`."""
    (folder / FILE).write_text(
        json.dumps(asdict(found), allow_nan=False, ensure_ascii=False), encoding="utf-8"
    )


def load(folder: Path) -> Drift | None:
    """Read what `save` wrote; None where the split has no days and so nothing was measured."""
    file = folder / FILE
    return Drift(**json.loads(file.read_bytes())) if file.is_file() else None


def compare_windows(ours: Drift, theirs: Drift) -> JSON:
    """A window beside another one: `volume` (rows, relative), `columns` ([column, divergence] pairs
    of those that both have).
    """
    shared = [name for name in ours.profile if name in theirs.profile]
    columns = [
        [name, round(_profiles(ours.profile[name], theirs.profile[name]), 4)] for name in shared
    ]
    before = sum(theirs.rows)
    return {VOLUME: sum(ours.rows) / before - 1 if before else None, "columns": columns}


def describe_change(since: Mapping[str, Any]) -> list[tuple[str, str]]:
    """How a window has moved away from the champion's, as (what, value) for people: as much as
    gate.since could compare.
    """
    rows = []
    if (volume := since.get(VOLUME)) is not None:
        rows.append(("rows of the window against the champion's", f"{volume:+.1%}"))
    if (unknown := since.get("unknown_items")) is not None:
        rows.append(("clicks on items the champion does not know", f"{unknown:.1%}"))
    widest = sorted(since.get("columns", []), key=lambda pair: -pair[1])[:3]
    return rows + [
        (f"drift of {column.replace('|', '/')} since the champion's window, bits", f"{bits:.3f}")
        for column, bits in widest
    ]


def relative(values: Doubles) -> Doubles:
    """|value / mean of those before - 1|; NaN for the first and where the mean is 0. [D] → [D]"""
    with np.errstate(divide="ignore", invalid="ignore"):
        change = np.abs(values / _mean_before(values) - 1)
    return np.where(np.isfinite(change), change, np.nan)


def absolute(values: Doubles) -> Doubles:
    """|value - mean of those before|, NaN values left out of the mean. [D] → [D]"""
    return np.abs(values - _mean_before(values))


def divergences(counts: Doubles) -> Doubles:
    """Each row's divergence from the sum of the rows before it; NaN where both are too few to tell
    drift from chance. [D, V] → [D]

    Two samples n, m of one distribution over V values diverge by about (V - 1) (1/n + 1/m) / (8 ln
    2) bits (the second-order term of the divergence, a chi-square over its degrees of freedom):
    more than CHANCE of it is not compared.
    """
    before = np.cumsum(counts, 0) - counts
    values = (counts.sum(0) > 0).sum()
    with np.errstate(divide="ignore"):
        chance = (values - 1) / (8 * math.log(2)) * (1 / counts.sum(1) + 1 / before.sum(1))
    return np.where(chance <= CHANCE, divergence(counts, before), np.nan)


def divergence(ones: Doubles, others: Doubles) -> Doubles:
    """Jensen-Shannon divergence in bits of what counts or shares stand for; NaN where there are
    none. 2 x [..., V] → [...]
    """
    with np.errstate(invalid="ignore", divide="ignore"):
        p, q = (each / each.sum(-1, keepdims=True) for each in (ones, others))
    middle = (p + q) / 2
    bits = (rel_entr(p, middle) + rel_entr(q, middle)).sum(-1) / (2 * math.log(2))
    return np.asarray(np.clip(bits, 0.0, 1.0), dtype=np.float64)


def _mean_before(values: Doubles) -> Doubles:
    known = np.isfinite(values)
    sums, counts = np.cumsum(np.where(known, values, 0)), np.cumsum(known)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.concatenate([[np.nan], (sums / counts)[:-1]])


def _profiles(ours: Mapping[str, float], theirs: Mapping[str, float]) -> float:
    values = sorted({*ours, *theirs})
    one, other = (
        np.array([shares.get(value, 0.0) for value in values]) for shares in (ours, theirs)
    )
    return float(divergence(one, other))


def _date(con: DuckDBPyConnection, edges_ms: list[int]) -> None:
    """View `dated`: the log's rows inside the window with `_day`, the number of the day that their
    time lies in.
    """
    con.execute(
        "CREATE OR REPLACE TABLE edges AS SELECT unnest(?) AS start, unnest(?) AS _day",
        [edges_ms[:-1], [*range(len(edges_ms) - 1)]],
    )
    con.execute(
        f"CREATE OR REPLACE VIEW dated AS SELECT edges._day, log.* FROM log ASOF JOIN edges ON log.{TIME} >= edges.start"
        f" WHERE log.{TIME} < {edges_ms[-1]}"
    )


def _by_day(con: DuckDBPyConnection, query: str, days: int, empty: float) -> Doubles:
    found = np.full(days, empty)
    for day, value in con.execute(query).fetchall():
        found[day] = value
    return found


_NEW_ITEMS = f"""
WITH seen AS (SELECT _day, {ITEM}, count(*) AS n FROM dated WHERE {ITEM} IS NOT NULL GROUP BY ALL)
SELECT today._day, coalesce(sum(today.n) FILTER (WHERE before.{ITEM} IS NULL), 0) / sum(today.n)
FROM seen AS today LEFT JOIN seen AS before ON before.{ITEM} = today.{ITEM} AND before._day = today._day - 1 GROUP BY 1
"""


def _columns(
    con: DuckDBPyConnection, config: Config, folder: Path
) -> Iterator[tuple[Feature, str, str]]:
    """(feature, SQL of rows with _day, SQL of the value) of each column whose values can be
    counted: text and target means cannot.
    """
    columns = config.features.columns
    sides = (
        (columns.context, None, "dated"),
        (columns.user, USER, "users"),
        (columns.item, ITEM, "items"),
    )
    for features, key, table in sides:
        file = folder / table_file(table)
        if key and not file.is_file():
            continue
        read = f"read_parquet({literal(str(file))})"
        sample = con.sql(f"SELECT * FROM {read if key else 'dated'} LIMIT 0")
        kinds = dict(zip(sample.columns, map(str, sample.types), strict=True))
        for feature in features:
            if feature.column in kinds and feature.kind in ("categorical", "multi", "numeric"):
                value = f"{'own.' if key else ''}{identifier(feature.column)}"
                source = (
                    f"dated JOIN (SELECT DISTINCT ON ({key}) * FROM {read}) AS own USING ({key})"
                    if key
                    else "dated"
                )
                yield (
                    feature,
                    source,
                    _value(con, feature, value, read, kinds[feature.column].endswith("[]")),
                )


def _value(con: DuckDBPyConnection, feature: Feature, value: str, read: str, listed: bool) -> str:
    """SQL: a value as text; of several in a cell each, of a number the decile (of the table's rows)
    that it lies in.
    """
    if feature.kind == "categorical":
        return f"CAST({value} AS VARCHAR)"
    if feature.kind == "multi":
        cells = (
            value
            if listed
            else f"string_split(coalesce(CAST({value} AS VARCHAR), ''), {literal(feature.separator)})"
        )
        return f"CAST(unnest({cells}) AS VARCHAR)"
    (found,) = one_row(
        con,
        f"SELECT quantile_cont(CAST({identifier(feature.column)} AS DOUBLE), {DECILES}) FROM {read}",
    )
    edges = [edge for edge in dict.fromkeys(found or []) if math.isfinite(edge)]
    above = " + ".join(f"CAST({value} > {edge!r} AS INTEGER)" for edge in edges) or "0"
    return f"CASE WHEN {value} IS NOT NULL THEN CAST({above} AS VARCHAR) END"


def _counts(
    con: DuckDBPyConnection, source: str, expression: str, days: int
) -> tuple[list[str], Doubles]:
    """The commonest values with one for the rest, and how often each day has each. → V, [D, V]"""
    each = f"SELECT _day, coalesce(nullif(value, ''), {literal(MISSING)}) AS value FROM (SELECT _day, {expression} AS value FROM {source})"
    top = f"SELECT value FROM counted GROUP BY value ORDER BY sum(n) DESC, value LIMIT {TOP}"
    query = f"""
    WITH counted AS (SELECT _day, value, count(*) AS n FROM ({each}) GROUP BY ALL), top AS ({top})
    SELECT _day, CASE WHEN value IN (SELECT value FROM top) THEN value ELSE {literal(REST)} END AS value, sum(n) AS n FROM counted GROUP BY ALL
    """
    found = con.sql(f"SELECT * FROM ({query}) ORDER BY value, _day").to_arrow_table().to_pandas()
    values, codes = np.unique(
        found["value"].to_numpy(dtype=object).astype(str), return_inverse=True
    )
    counts = np.zeros((days, len(values)))
    np.add.at(
        counts,
        (found["_day"].to_numpy(dtype=np.int64), codes),
        found["n"].to_numpy(dtype=np.float64),
    )
    return [str(value) for value in values], counts


def _plain(values: Doubles) -> list[float | None]:
    return [round(value, 6) if math.isfinite(value) else None for value in values.tolist()]
