"""Files of a log: which files a table has, and how their columns map to canonical names."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal, Self

import duckdb
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    ValidatorFunctionWrapHandler,
    WrapValidator,
    model_validator,
)

from dssm_core.columns import ITEM, LABEL, TIME, USER
from dssm_core.config.data import zone_names
from dssm_core.data.sources.explode import Explode
from dssm_core.data.sources.prior import PriorItems
from dssm_core.errors import DataError, shorten, shown

TimeUnit = Literal["s", "ms", "us", "ns", "iso", "row"]
ROW_UNIT = "row"  # of logs without times
EXAMPLE_FORMAT = "%m/%d/%Y %I:%M:%S %p"
_EVENING = "TIMESTAMPTZ '2024-11-23 21:45:56+00'"


def _relative(pattern: str) -> str:
    """The pattern itself; ValueError when it names no file or could match files outside the
    source's folder.
    """
    path = PurePosixPath(pattern)
    if not path.parts or path.is_absolute() or ".." in path.parts or pattern.startswith("~"):
        raise ValueError(
            f"{shown(pattern)} must name files inside `path`: give a relative pattern without '..',"
            " such as clicks/*.csv.gz"
        )
    if "\0" in pattern:
        raise ValueError(f"{shown(pattern)} has a NUL character: remove it")
    if any("**" in part and part != "**" for part in path.parts):
        raise ValueError(
            f"{shown(pattern)} has ** inside a name, but ** matches whole folders: write, for"
            " example, clicks/**/*.csv"
        )
    return pattern


def _zone(name: str) -> str:
    if name not in zone_names():
        raise ValueError(
            f"unknown time zone {name!r}; use an IANA name such as America/Sao_Paulo or UTC"
        )
    return name


def _format(text: str) -> str:
    """The format itself; ValueError when DuckDB's strptime does not know it, or when a time that is
    written by it cannot be read back, because the day is missing or %I has no %p.
    """
    parts = ("day", "hour", "minute", "second")
    whole_times = ", ".join(f"date_trunc('{part}', {_EVENING})" for part in parts)
    read_back = f"CAST(try_strptime(strftime({_EVENING}, $text), $text) AS TIMESTAMPTZ)"
    query = f"SELECT {read_back} IN ({whole_times})"
    try:
        with duckdb.connect() as con:
            con.execute("SET TimeZone = 'UTC'")
            (row,) = con.execute(query, {"text": text}).fetchall()
    except (duckdb.Error, UnicodeError) as error:
        reason = str(error).partition("\n")[0].removeprefix("Invalid Input Error: ")
        raise ValueError(
            f"{shown(text)} is no format of times ({shorten(reason)}): write one such as"
            f" {EXAMPLE_FORMAT!r}, with the specifiers of DuckDB's strptime"
        ) from error
    if not row[0] or "\0" in text:
        raise ValueError(
            f"{shown(text)} does not say a whole time: add the year, the month and the day,"
            f" and %p beside %I, such as {EXAMPLE_FORMAT!r}"
        )
    return text


Pattern = Annotated[str, AfterValidator(_relative)]


def _column(value: Any, check: ValidatorFunctionWrapHandler) -> Any:
    """The checked value; one ValueError instead of one for each type that a column may have."""
    try:
        return check(value)
    except ValidationError as error:
        raise ValueError("give the name of a column, or a list of two or more names") from error


Column = Annotated[
    str | Annotated[tuple[str, ...], Field(min_length=2)], WrapValidator(_column)
]  # several columns make one id


class FileTable(BaseModel):
    """One table of a log in files."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)
    files: Pattern
    """Glob pattern relative to the source's path. A file of exactly this name wins."""
    columns: dict[str, Column] = {}
    """Canonical or chosen name → the file's column. A column that is not listed keeps its name. An
    id can be made of several columns, such as `user_id: [country, device, session]`: their values
    with `|` between them. A row that lacks one of them has no id."""
    time_unit: TimeUnit = "ms"
    """Unit of `timestamp`, `created_at`, `available_from` and `available_until`. `row` is for
    interactions without times: no column is read, and the order of the rows is that of the events.
    It needs a split without days, such as `holdout`."""
    time_format: Annotated[str, AfterValidator(_format)] | None = None
    """Format of these times instead of `time_unit`, in the specifiers of DuckDB's strptime, such as
    `%m/%d/%Y %I:%M:%S %p`. A table has a time_unit or a time_format, not both."""
    timezone: Annotated[str, AfterValidator(_zone)] = "UTC"
    """Time zone of times without one of their own (a UTC offset, `%z`), an IANA name."""

    explode: Explode | None = None
    """A column whose cells hold several items; null for one item a row."""
    history: PriorItems | None = None
    """For interactions: a column with what a user had taken before the log; null for none."""
    anonymous: bool = False
    """For interactions: whether a row without a user id is a user of its own, a session, instead of
    going to quarantine. The file needs no column of user ids. The session is the impression if the
    files have `impression_id`, else the row: its id is made of the file's name, the number of the
    row in the file (before `explode`) and its time."""

    @model_validator(mode="after")
    def _several_columns_are_an_id(self) -> Self:
        for name, column in self.columns.items():
            if not isinstance(column, str) and name not in (USER, ITEM):
                raise ValueError(
                    f"columns maps {shown(name)} to several columns: only {USER} and {ITEM} can be"
                    " made of several, give one"
                )
        return self

    @model_validator(mode="after")
    def _history_is_only_history(self) -> Self:
        if self.history is None:
            return self
        column = self.history.column
        if self.explode and self.explode.column == column:
            raise ValueError(f"history and explode both name {shown(column)}: give two columns")
        for name, own in self.columns.items():
            if column in ((own,) if isinstance(own, str) else own):
                raise ValueError(
                    f"columns maps {name!r} to {shown(column)}, which history reads too: leave one"
                    " of them out"
                )
        return self

    @model_validator(mode="after")
    def _one_label(self) -> Self:
        if self.explode and self.explode.label_after is not None and LABEL in self.columns:
            raise ValueError(
                f"columns maps {LABEL!r} to {shown(self.columns[LABEL])}, and explode.label_after"
                " makes a column of that name: leave one of them out"
            )
        return self

    @model_validator(mode="after")
    def _rows_have_no_times(self) -> Self:
        if self.time_unit == ROW_UNIT and TIME in self.columns:
            raise ValueError(
                f"columns maps {TIME!r} to {shown(self.columns[TIME])}, but time_unit {ROW_UNIT!r}"
                " reads no times: give the unit of the column, or leave the column out"
            )
        return self

    @model_validator(mode="after")
    def _unit_or_format(self) -> Self:
        if self.time_format is not None and "time_unit" in self.model_fields_set:
            raise ValueError(
                f"time_unit {self.time_unit!r} and time_format {shown(self.time_format)} are two"
                " ways to read the same times: leave one of them out"
            )
        return self


def _with_ids(table: FileTable) -> FileTable:
    """The table itself; ValueError if it has settings that only interactions have."""
    for name in ("anonymous", "history"):
        if getattr(table, name):
            raise ValueError(f"{name} is for interactions: leave it out of users and items")
    if table.time_unit == ROW_UNIT:
        raise ValueError(f"time_unit {ROW_UNIT!r} is for interactions: give the unit of the times")
    return table


WITH_IDS = AfterValidator(_with_ids)  # of the tables of users and of items


def find_files(base: str, patterns: Sequence[str]) -> dict[str, Path]:
    """Files below `base` by relative name, sorted within each pattern.

    Files and folders whose name begins with `_` or `.` are no data (`_SUCCESS`, the `_temporary` of
    an unfinished Spark task, `.ipynb_checkpoints`): only a pattern that spells this out finds them.
    If `base` is a file, it replaces the first pattern, and the other patterns are matched in its
    folder. Raises DataError naming the folder and the pattern when a pattern matches no file, and
    naming a file that is a link to outside the folder.
    """
    path = Path(base).expanduser()
    if path.is_file():
        return {path.name: path} | _match(path.parent, patterns[1:])
    if not path.is_dir():
        raise DataError(
            f"{base!r} is neither a folder nor a file: set data.source.path, or give --data FOLDER"
        )
    return _match(path, patterns)


def table_files(path: str, table: FileTable, is_interactions: bool) -> dict[str, Path]:
    """The files of one table. If `path` is the interactions file itself, the files of the other
    tables are in its folder.
    """
    base = Path(path).expanduser()
    folder = str(base.parent) if base.is_file() and not is_interactions else path
    return find_files(folder, [table.files])


def named_files(files: Mapping[str, Path], table: str, spec: FileTable) -> str:
    """The files of a table for error messages: the name of the only one, or how many there are."""
    if len(files) == 1:
        return repr(next(iter(files.values())).name)
    return f"{table} ({len(files)} files like {spec.files!r})"


def _match(folder: Path, patterns: Sequence[str]) -> dict[str, Path]:
    matches: dict[str, Path] = {}
    for pattern in patterns:
        found = {
            file.relative_to(folder).as_posix(): file
            for file in _glob(folder, pattern)
            if file.is_file()
        }
        files = {name: file for name, file in found.items() if not _hidden(name, pattern)}
        if not files:
            raise DataError(
                f"no file in {str(folder)!r} matches {pattern!r}{_only_hidden(found)}: check"
                " data.source.path and the pattern"
            )
        _check_links(folder, list(files.values()))
        matches |= files
    return matches


def _glob(folder: Path, pattern: str) -> list[Path]:
    """The file of exactly this name, else the paths that match, sorted. DataError if a folder
    cannot be read, or vanishes meanwhile.
    """
    exact = folder / pattern
    try:
        return [exact] if exact.is_file() else sorted(folder.glob(pattern))
    except OSError as error:
        raise DataError(
            f"{str(error.filename or folder)!r} cannot be searched ({error.strerror}): check"
            " data.source.path, and that no file is being moved there"
        ) from error


def _hidden(name: str, pattern: str) -> bool:
    """Whether a part of a relative name begins with `_` or `.`, but no part of the pattern does."""
    spelt = {part[0] for part in PurePosixPath(pattern).parts}
    return any(part[0] in "_." and part[0] not in spelt for part in PurePosixPath(name).parts)


def _only_hidden(found: Collection[str]) -> str:
    if not found:
        return ""
    return f" but {next(iter(found))!r}, which is skipped because a name in it begins with _ or ."


def _check_links(folder: Path, files: Sequence[Path]) -> None:
    """DataError if a file leaves the folder by a link. The folder itself may be a link."""
    root = folder.resolve()
    for file in files:
        if not file.resolve().is_relative_to(root):
            raise DataError(
                f"{str(file)!r} is a link to {str(file.resolve())!r}, outside the folder of the "
                "data: copy the file there, or set data.source.path to a folder that holds it"
            )
