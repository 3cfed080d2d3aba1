"""Helpers that every file source shares: find files, map columns, bring ids and times to their
canonical form.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Annotated, Literal
from zoneinfo import available_timezones

from duckdb import DuckDBPyConnection, DuckDBPyRelation
from pydantic import AfterValidator, BaseModel, ConfigDict

from dssm_core.columns import CREATED, INTERACTIONS, ITEM, ITEMS, TIME, USER, USERS
from dssm_core.errors import DataError
from dssm_core.families import did_you_mean

RAW = "_raw"  # suffix of the column that keeps a text which could not be parsed
KEYS = {INTERACTIONS: (USER, ITEM, TIME), USERS: (USER,), ITEMS: (ITEM,)}
TimeUnit = Literal["s", "ms", "us", "ns", "iso"]
_WHOLE = r"^(0|-?[1-9][0-9]*)\.0$"  # an integer as pandas writes it in a float column
_OFFSET = r":.*(Z|[+-]\d\d(:?\d\d)?)$"  # a clock time, then a UTC offset


def inside(pattern: str) -> str:
    """The glob itself; ValueError when it could leave the source's folder."""
    path = PurePosixPath(pattern)
    if not pattern or path.is_absolute() or ".." in path.parts:
        raise ValueError(
            f"{pattern!r} must stay inside `path`: a relative pattern without '..', such as clicks/*.csv.gz"
        )
    return pattern


def _zone(name: str) -> str:
    if name not in available_timezones():
        raise ValueError(
            f"unknown time zone {name!r}; use an IANA name such as America/Sao_Paulo or UTC"
        )
    return name


class Table(BaseModel):
    """One table of a log on disk.

    files: glob below the source's path. columns: canonical or chosen name -> the file's column; a
    column that is not named keeps its own name. time_unit: of `timestamp` and `created_at`;
    timezone: of ISO times without an offset.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    files: Annotated[str, AfterValidator(inside)]
    columns: dict[str, str] = {}
    time_unit: TimeUnit = "ms"
    timezone: Annotated[str, AfterValidator(_zone)] = "UTC"


def find_files(base: str, patterns: Sequence[str]) -> dict[str, Path]:
    """Files below `base` by relative name, sorted within each pattern.

    A `base` that is itself a file stands for the first pattern, and the others are looked for
    beside it. Raises DataError naming folder and pattern when there is no match.
    """
    path = Path(base).expanduser()
    if path.is_file():
        return {path.name: path} | _match(path.parent, patterns[1:])
    if not path.is_dir():
        raise DataError(
            f"{base!r} is neither a folder nor a file: set data.source.path, or give --data FOLDER"
        )
    return _match(path, patterns)


def _match(folder: Path, patterns: Sequence[str]) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for pattern in patterns:
        files = sorted(file for file in folder.glob(pattern) if file.is_file())
        if not files:
            raise DataError(
                f"no file in {str(folder)!r} matches {pattern!r}: check data.source.path and the pattern"
            )
        found |= {file.relative_to(folder).as_posix(): file for file in files}
    return found


def quote(name: str) -> str:
    """A column name as a SQL identifier."""
    return '"' + name.replace('"', '""') + '"'


def text(value: str) -> str:
    """A value as a SQL string."""
    return "'" + value.replace("'", "''") + "'"


def canonical(
    con: DuckDBPyConnection, raw: DuckDBPyRelation, table: str, spec: Table, where: str
) -> DuckDBPyRelation:
    """A file's columns under canonical names, ids as text, times as int64 ms UTC with
    `<column>_raw` beside them.

    table: interactions, users or items; where: names the files in errors. Raises DataError on a
    missing column.
    """
    types = {name: str(kind) for name, kind in zip(raw.columns, raw.types, strict=True)}
    names = _mapping(types, table, spec.columns, where)
    parts: list[str] = []
    for name, column in names.items():
        source, kind = quote(column), types[column]
        if name in (USER, ITEM):
            parts.append(f"{id_text(source, kind)} AS {quote(name)}")
        elif name in (TIME, CREATED):
            value = time_ms(source, kind, spec.time_unit, spec.timezone)
            parts += [
                f"{value} AS {quote(name)}",
                f"{kept_text(source, kind, value)} AS {quote(name + RAW)}",
            ]
        else:
            parts.append(f"{source} AS {quote(name)}")
    return raw.project(", ".join(parts))


def _mapping(
    types: Mapping[str, str], table: str, columns: Mapping[str, str], where: str
) -> dict[str, str]:
    """Canonical name -> file column, keys first, then the other mapped ones, then the rest of the
    file's columns.
    """
    wanted = {key: columns.get(key, key) for key in KEYS[table]} | dict(columns)
    for name, column in wanted.items():
        if column not in types:
            hint = did_you_mean(column, list(types))
            raise DataError(
                f"{where} has no column {column!r}, which {table}.columns maps to {name!r}: {hint}"
            )
    rest = [column for column in types if column not in wanted.values()]
    if clash := sorted(set(rest) & set(wanted)):
        raise DataError(
            f"{where} has a column {clash[0]!r} besides the one mapped to it: map it to another name too"
        )
    return wanted | {column: column for column in rest}


def id_text(source: str, kind: str) -> str:
    """SQL: an id as trimmed text, NULL when empty, NaN or infinite.

    7.0 and '7.0' (pandas, of an integer column that met a NULL) are '7'; text such as 007, 1.5 or
    1.0.0 is kept.
    """
    value = f"CAST({source} AS VARCHAR)"
    if kind in ("DOUBLE", "FLOAT"):
        whole = f"CASE WHEN {source} = floor({source}) THEN CAST(TRY_CAST({source} AS HUGEINT) AS VARCHAR) END"
        return f"CASE WHEN isfinite({source}) THEN coalesce({whole}, {value}) END"
    return f"nullif(regexp_replace(trim({value}), {text(_WHOLE)}, '\\1'), '')"


def time_ms(source: str, kind: str, unit: TimeUnit, timezone: str) -> str:
    """SQL: a time as int64 ms UTC, NULL where it cannot be read. Native timestamp columns ignore
    `unit`.
    """
    if kind == "TIMESTAMP WITH TIME ZONE":
        return f"epoch_ms({source})"
    if kind.startswith("TIMESTAMP") or kind == "DATE":
        return f"epoch_ms(timezone({text(timezone)}, CAST({source} AS TIMESTAMP)))"
    if unit == "iso":
        value = f"trim(CAST({source} AS VARCHAR))"
        local = f"timezone({text(timezone)}, TRY_CAST({value} AS TIMESTAMP))"  # this cast would ignore an offset
        return f"epoch_ms(CASE WHEN regexp_matches({value}, {text(_OFFSET)}) THEN TRY_CAST({value} AS TIMESTAMPTZ) ELSE {local} END)"
    if unit == "s":  # may hold a fraction
        return f"CAST(floor(TRY_CAST({source} AS DECIMAL(24, 6)) * 1000) AS BIGINT)"
    return f"TRY_CAST({source} AS BIGINT)" + {"ms": "", "us": " // 1000", "ns": " // 1000000"}[unit]


def kept_text(source: str, kind: str, value: str) -> str:
    """SQL: the text of a cell that `value` could not make sense of, else NULL (also when the cell
    is empty).
    """
    return f"CASE WHEN {value} IS NULL THEN nullif(trim(CAST({source} AS VARCHAR)), '') END"
