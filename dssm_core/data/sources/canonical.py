"""The canonical form of a log's columns: names, ids as text, times as milliseconds."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from duckdb import DuckDBPyRelation

from dssm_core.columns import (
    AVAILABLE_FROM,
    AVAILABLE_UNTIL,
    CREATED,
    HISTORY,
    IMPRESSION,
    INTERACTIONS,
    INTERNAL,
    ITEM,
    ITEMS,
    TIME,
    USER,
    USERS,
)
from dssm_core.data.sources.explode import exploded
from dssm_core.data.sources.ids import id_text
from dssm_core.data.sources.mapped import ROW_UNIT, MappedTable
from dssm_core.data.sources.prior import prior_sql
from dssm_core.data.sources.sessions import SESSION, impression_sql, user_sql
from dssm_core.data.sql import folded, identifier, literal
from dssm_core.errors import DataError
from dssm_core.families import did_you_mean

RAW = (
    f"{INTERNAL}raw_"  # prefix of the column that holds the text of cells that could not be parsed
)
TIMES = {
    INTERACTIONS: (TIME,),
    USERS: (),
    ITEMS: (CREATED, AVAILABLE_FROM, AVAILABLE_UNTIL),
}  # the columns of times of each table
KEYS = {INTERACTIONS: (USER, ITEM, TIME), USERS: (USER,), ITEMS: (ITEM,)}
_ZONED = r":.*([A-Za-z]|[+-]\d\d(:?\d\d)?$)"  # a clock time, then a zone's name or a UTC offset
ROWS_OF_A_FILE = 2**32  # more than a file has, of logs without times
YEAR_1_MS = -62_135_596_800_000
YEAR_10000_MS = 253_402_300_800_000
_PER_MS = {"ms": "", "us": " // 1000", "ns": " // 1000000"}


def to_canonical(
    raw: DuckDBPyRelation, table: str, spec: MappedTable, where: str, file: int = 0
) -> DuckDBPyRelation:
    """The columns of a file under canonical names, ids as text, times as int64 ms UTC, each with a
    column `<name>_raw` for the text of cells that are no time. With `history`, HISTORY is the list
    of ids that the row's user had before the log.

    table: interactions, users or items. where: the files, for error messages. file: the number of
    the file, if each file is brought to this form on its own. Raises DataError when a column is
    missing, or when a name cannot be used.
    """
    impression = impression_sql(raw.columns, spec.columns)
    if spec.explode:
        raw = exploded(raw, spec.explode, IMPRESSION in spec.columns, where, file)
    kinds = dict(zip(raw.columns, raw.types, strict=True))
    types = {name: str(kind) for name, kind in kinds.items()}
    if spec.anonymous:
        types.pop(SESSION)
    history = []
    if spec.history:
        history = [f"{prior_sql(spec.history, kinds, where)} AS {HISTORY}"]
        types.pop(spec.history.column)
    names = _mapping(types, table, spec, where)
    _check_names(names, where)
    parts: list[str] = []
    for name, columns in names.items():
        if name in (USER, ITEM):
            texts = [id_text(identifier(column), types[column]) for column in columns]
            value = _joined(texts) if texts else None
            if name == USER and spec.anonymous:
                value = user_sql(value, impression, _time_of_row(names, types, spec))
            parts.append(f"{value} AS {identifier(name)}")
            continue
        if not columns:  # the number of the row is its time
            number = f"row_number() OVER () - 1 + {file * ROWS_OF_A_FILE}"
            parts.append(f"CAST({number} AS BIGINT) AS {TIME}")
            continue
        (column,) = columns
        source = identifier(column)
        if name in TIMES[table]:
            value = time_ms(source, types[column], spec)
            parts += [
                f"{value} AS {identifier(name)}",
                f"{unparsed_text(source, value)} AS {identifier(RAW + name)}",
            ]
        else:
            parts.append(f"{source} AS {identifier(name)}")
    return raw.project(", ".join(parts + history))


def _mapping(
    types: Mapping[str, str], table: str, spec: MappedTable, where: str
) -> dict[str, tuple[str, ...]]:
    """Canonical name → columns of the file: the keys first, then the other mapped columns, then the
    rest of the file's columns under their own names. The parts of an id are in the rest too. The
    user has no column if users are anonymous and the file has none; the time has none if rows have
    no times.
    """
    columns = spec.columns
    chosen = {key: columns.get(key, key) for key in KEYS[table]} | dict(columns)
    mapped = {name: (own,) if isinstance(own, str) else own for name, own in chosen.items()}
    if spec.anonymous and USER not in columns and folded(USER) not in map(folded, types):
        mapped[USER] = ()
    if table == INTERACTIONS and spec.time_unit == ROW_UNIT:
        mapped[TIME] = ()
        _refuse_times(types, mapped, where)
    for name, own in mapped.items():
        for column in own:
            if column not in types:
                raise DataError(_missing_column(name, column, table, where, list(types)))
    used = {own[0] for own in mapped.values() if len(own) == 1}
    rest = [column for column in types if column not in used]
    taken = {folded(name): name for name in mapped}
    for column in rest:
        if key := taken.get(folded(column)):
            raise DataError(
                f"{where} has a column {column!r}, but {table}.columns maps {key!r} to the column"
                f" {', '.join(mapped[key])!r}: map the file's {column!r} to another name too, such"
                f" as {{{key}_2: {column}}}"
            )
    return mapped | {column: (column,) for column in rest}


def _refuse_times(
    types: Mapping[str, str], mapped: Mapping[str, tuple[str, ...]], where: str
) -> None:
    """Raise DataError if a file that is read without times has a column of them, under no other
    name.
    """
    renamed = {column for columns in mapped.values() for column in columns}
    for column in types:
        if folded(column) == folded(TIME) and column not in renamed:
            raise DataError(
                f"{where} has a column {column!r}, but time_unit is {ROW_UNIT!r}, which is for logs"
                " without times: give its unit, or map it to another name, such as"
                f" {{other: {column}}}"
            )


def _time_of_row(
    names: Mapping[str, tuple[str, ...]], types: Mapping[str, str], spec: MappedTable
) -> str:
    """SQL: the time of a row in ms, NULL if rows have no times."""
    if not names[TIME]:
        return "NULL"
    (at,) = names[TIME]
    return time_ms(identifier(at), types[at], spec)


def _joined(texts: list[str]) -> str:
    """SQL: texts with | between them, NULL if one is missing. A | or backslash in a text gets a
    backslash before it, so that different texts never make the same id.
    """
    if len(texts) == 1:
        return texts[0]
    escaped = [rf"replace(replace({text}, '\', '\\'), '|', '\|')" for text in texts]
    mark = " || '|' || "
    return f"({mark.join(escaped)})"


def check_distinct(names: Iterable[str], where: str) -> None:
    """DataError naming two columns that have one name for DuckDB, which ignores case."""
    first: dict[bytes, str] = {}
    for name in names:
        if other := first.get(folded(name)):
            raise DataError(
                f"{where} has the columns {other!r} and {name!r}: two names must differ in more"
                " than case. Rename one of them in the file"
            )
        first[folded(name)] = name


def _check_names(names: Iterable[str], where: str) -> None:
    """DataError if names differ only in case, or if one may be that of an internal column."""
    check_distinct(names, where)
    for name in names:
        if folded(name).startswith(folded(INTERNAL)):
            raise DataError(
                f"{where} has a column {name!r}: names that begin with {INTERNAL} are used"
                f" internally. Map it to another name, such as {{x: {name}}}"
            )


def _missing_column(name: str, column: str, table: str, where: str, columns: list[str]) -> str:
    hint = did_you_mean(column, columns)
    if len(columns) == 1:
        hint = f"its only column is {columns[0]!r}, so check `separator`"
    if column == name:
        return (
            f"{where} has no column {column!r}, which {table} need: {hint}. If the column has"
            f" another name, map it: {table}.columns {{{name}: ITS NAME}}"
        )
    return f"{where} has no column {column!r}, which {table}.columns maps to {name!r}: {hint}"


def time_ms(source: str, kind: str, spec: MappedTable) -> str:
    """SQL: a time as int64 ms UTC, NULL where it cannot be parsed or is not in the years 1 to 9999.
    Columns of a timestamp type ignore the unit and the format.
    """
    value = _time_ms(source, kind, spec)
    return f"CASE WHEN {value} >= {YEAR_1_MS} AND {value} < {YEAR_10000_MS} THEN {value} END"


def _time_ms(source: str, kind: str, spec: MappedTable) -> str:
    zone = literal(spec.timezone)
    if kind == "TIMESTAMP WITH TIME ZONE":
        return f"epoch_ms({source})"
    if kind == "TIMESTAMPTZ_NS":
        return f"epoch_ns({source}) // 1000000"
    if kind.startswith("TIMESTAMP") or kind == "DATE":
        return f"epoch_ms(timezone({zone}, CAST({source} AS TIMESTAMP)))"
    if spec.time_format is not None:
        return _formatted_ms(source, spec.time_format, zone)
    if spec.time_unit == "iso":
        value = f"trim(CAST({source} AS VARCHAR))"
        # the cast to TIMESTAMP ignores a zone, so values with one are cast to TIMESTAMPTZ
        local = f"timezone({zone}, TRY_CAST({value} AS TIMESTAMP))"
        absolute = f"TRY_CAST({value} AS TIMESTAMPTZ)"
        zoned = f"regexp_matches({value}, {literal(_ZONED)})"
        return f"epoch_ms(CASE WHEN {zoned} THEN {absolute} ELSE {local} END)"
    if spec.time_unit == "s":  # may have decimals
        return f"TRY_CAST(floor(TRY_CAST({source} AS DECIMAL(24, 6)) * 1000) AS BIGINT)"
    return f"TRY_CAST({source} AS BIGINT)" + _PER_MS[spec.time_unit]


def _formatted_ms(source: str, text: str, zone: str) -> str:
    """SQL: a text that is read by a format of strptime as ms UTC."""
    time = f"try_strptime(trim(CAST({source} AS VARCHAR)), {literal(text)})"
    if {"z", "Z"} & set(re.findall("%-?(.)", text)):  # the value is a TIMESTAMPTZ
        return f"epoch_ms({time})"
    return f"epoch_ms(timezone({zone}, CAST({time} AS TIMESTAMP)))"


def unparsed_text(source: str, value: str) -> str:
    """SQL: the text of a cell for which `value` is NULL, else NULL; NULL for an empty cell."""
    return f"CASE WHEN {value} IS NULL THEN nullif(trim(CAST({source} AS VARCHAR)), '') END"
