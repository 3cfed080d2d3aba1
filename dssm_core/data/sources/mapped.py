"""How the columns of a table map to canonical names: the settings that all tables of a log have."""

from __future__ import annotations

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
from dssm_core.errors import shorten, shown

TimeUnit = Literal["s", "ms", "us", "ns", "iso", "row"]
ROW_UNIT = "row"  # of logs without times
EXAMPLE_FORMAT = "%m/%d/%Y %I:%M:%S %p"
_EVENING = "TIMESTAMPTZ '2024-11-23 21:45:56+00'"


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


def _column(value: Any, check: ValidatorFunctionWrapHandler) -> Any:
    """The checked value; one ValueError instead of one for each type that a column may have."""
    try:
        return check(value)
    except ValidationError as error:
        raise ValueError("give the name of a column, or a list of two or more names") from error


Column = Annotated[
    str | Annotated[tuple[str, ...], Field(min_length=2)], WrapValidator(_column)
]  # several columns make one id


class MappedTable(BaseModel):
    """How the columns of one table of a log map to canonical ones."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)
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


def _with_ids(table: MappedTable) -> MappedTable:
    """The table itself; ValueError if it has settings that only interactions have."""
    for name in ("anonymous", "history"):
        if getattr(table, name):
            raise ValueError(f"{name} is for interactions: leave it out of users and items")
    if table.time_unit == ROW_UNIT:
        raise ValueError(f"time_unit {ROW_UNIT!r} is for interactions: give the unit of the times")
    return table


WITH_IDS = AfterValidator(_with_ids)  # of the tables of users and of items
