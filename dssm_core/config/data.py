"""The log, its checks, and its split into train and test."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self, cast
from zoneinfo import ZoneInfo, available_timezones

from pydantic import (
    AfterValidator,
    BaseModel,
    Field,
    PlainValidator,
    field_validator,
    model_validator,
)

from dssm_core import families
from dssm_core.columns import LABEL
from dssm_core.config.base import Member, Section
from dssm_core.config.merge import IMPLIED_KINDS
from dssm_core.config.row_conditions import check_row_condition
from dssm_core.errors import ConfigError, shorten, shown
from dssm_core.families import SPLITS

if TYPE_CHECKING:
    from dssm_core.data.splits.protocol import Split as SplitMember
else:
    SplitMember = Any


MAX_WEIGHT = 1e6  # beyond it, small weights would be lost in a float32 sum
OF_NUMBERS = ("log", "scale", "min", "max")  # settings of a weight that is a number in the log
Ranges = dict[str, tuple[float | None, float | None]]
SideTable = Literal["users", "items"]


@cache
def zone_names() -> frozenset[str]:
    """The IANA names of all time zones. Listing them reads hundreds of files."""
    return frozenset(available_timezones())


class Weight(Section):
    """How much a positive counts in the loss, and in the metric that chooses the number of epochs:
    a weight of 2 is as the event twice, a weight of 0 as no event. Give `values` for a column of
    texts; otherwise the column must have numbers of at least 0. A positive without a weight is
    quarantined.
    """

    column: Annotated[str, Field(min_length=1)]
    """The column of the interactions that the weight comes from."""
    values: (
        Annotated[dict[str, Annotated[float, Field(ge=0, le=MAX_WEIGHT)]], Field(min_length=1)]
        | None
    ) = None
    """The weight of each value of the column, such as {click: 1, purchase: 5}; null takes the
    column as a number."""
    log: bool = False
    """Whether log(1 + number) is taken, so that a number ten times as large is not ten times the
    weight."""
    scale: Annotated[float, Field(gt=0)] = 1.0
    """The factor between the number (or its logarithm) and the weight, such as 0.1 for seconds."""
    min: Annotated[float, Field(ge=0, le=MAX_WEIGHT)] = 0.0
    """The smallest weight; smaller ones are raised to it."""
    max: Annotated[float, Field(gt=0, le=MAX_WEIGHT)] = MAX_WEIGHT
    """The largest weight; larger ones are lowered to it."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.column == LABEL:
            raise ValueError(
                "weight.column is label, which becomes 1 or 0 by data.positive: map the file's"
                " column to another name as well, such as {rating: ITS NAME}, and give that name"
            )
        defaults = {name: type(self).model_fields[name].default for name in OF_NUMBERS}
        of_numbers = [name for name in OF_NUMBERS if getattr(self, name) != defaults[name]]
        if self.values is not None and of_numbers:
            raise ValueError(
                f"weight.values gives each value its weight, so {', '.join(of_numbers)} would have"
                " no effect: remove one or the other"
            )
        if self.values is not None and not any(self.values.values()):
            raise ValueError("weight.values are all 0, so that nothing would be trained")
        if self.min > self.max:
            raise ValueError(f"weight.min {self.min:g} is above weight.max {self.max:g}")
        return self


class Data(Section):
    """Where the log is and what its columns mean."""

    source: Member
    """The source of the log: a member of the sources family."""
    timezone: str = "UTC"
    """The time zone in which a day begins, an IANA name such as America/Sao_Paulo."""
    positive: Annotated[str, AfterValidator(check_row_condition)] = "label == 1"
    """The condition that makes a row a positive interaction, such as `rating > 3` or `event in
    ['click', 'purchase'] and seconds >= 30`. A missing value meets no comparison."""
    negative: Annotated[str, AfterValidator(check_row_condition)] | None = None
    """The condition that makes one of the other rows a negative, such as `rating < 3`. A row that
    meets neither condition is neither trained on nor drawn as a negative. Null takes every row that
    is no positive as a negative."""
    labels: Annotated[tuple[float, ...], Field(min_length=1)] | None = (0, 1)
    """The values that the column of numbers in `positive` may have (of several columns, `label`);
    rows with other values are quarantined. Null allows every number."""
    weight: Weight | None = None
    """How much each positive counts in the loss of training, such as a purchase more than a click;
    null weighs all alike."""

    @field_validator("timezone")
    @classmethod
    def _check_timezone(cls, value: str) -> str:
        if value not in zone_names():
            raise ValueError(
                f"unknown time zone {value!r}; use an IANA name such as America/Sao_Paulo or UTC"
            )
        return value

    @property
    def zone(self) -> ZoneInfo:
        """The time zone in which a day begins."""
        return ZoneInfo(self.timezone)


class DriftLimits(Section):
    """How far a day may be from the days before it in the window. Beyond a limit a warning is
    given; null turns the limit off.
    """

    volume: Annotated[float, Field(gt=0)] | None = 0.5
    """Distance of a day's number of rows from the mean, as a share of the mean."""
    new_items: Annotated[float, Field(gt=0, le=1)] | None = 0.2
    """Distance of a day's share of rows with an item that the day before did not have, from the
    mean share.
    """
    features: Annotated[float, Field(gt=0, le=1)] | None = 0.1
    """Distance of a feature column's values from those of all days before, as the Jensen-Shannon
    divergence in bits. Days with too few rows are not compared."""


class DriftRefusals(DriftLimits):
    """The same distances. Beyond a limit the log is refused; by default there is no limit."""

    volume: Annotated[float, Field(gt=0)] | None = None
    """Distance of a day's number of rows from the mean, as a share of the mean."""
    new_items: Annotated[float, Field(gt=0, le=1)] | None = None
    """Distance of a day's share of rows with an item that the day before did not have, from the
    mean share.
    """
    features: Annotated[float, Field(gt=0, le=1)] | None = None
    """Distance of a feature column's values from those of all days before, as the Jensen-Shannon
    divergence in bits. Days with too few rows are not compared."""


class DayDrift(Section):
    """Drift from day to day, for splits that have days."""

    warn: DriftLimits = DriftLimits()
    """Distances beyond which a warning is given."""
    fail: DriftRefusals = DriftRefusals()
    """Distances beyond which the log is refused."""


class Validation(Section):
    """What the data must be like."""

    max_quarantine_share: Annotated[float, Field(ge=0, le=1)] = 0.01
    """The largest share of the window's rows that may be quarantined, 0 to 1."""
    min_rows_per_day: Annotated[int, Field(ge=0)] = 1
    """The smallest number of rows that each day must have, for splits that have days."""
    ranges: Ranges = Field(default={})
    """The smallest and largest value of numeric columns, by column; null is no limit."""
    allow_missing: tuple[SideTable, ...] = ()
    """The tables, `users` or `items`, that may lack rows: an interaction with an id that is not in
    the table is kept, and the columns of the id are missing values. Otherwise such interactions are
    quarantined."""
    allow_unreadable: tuple[SideTable, ...] = ()
    """The tables, `users` or `items`, in which a cell of a column of numbers may be no number, such
    as `n/a`: it is a missing value. Otherwise such a cell refuses the log."""
    drift: DayDrift = DayDrift()
    """Limits on drift from day to day."""

    @field_validator("ranges")
    @classmethod
    def _check_ranges(cls, value: Ranges) -> Ranges:
        if problems := list(_wrong_ranges(value)):
            raise ValueError("; ".join(problems))
        return value


def _wrong_ranges(ranges: Ranges) -> Iterator[str]:
    for column, (low, high) in ranges.items():
        if low is None and high is None:
            yield f"{shorten(column)!r} has no limit: give [smallest, largest], or leave it out"
        elif low is not None and high is not None and low > high:
            yield f"{shorten(column)!r} has {low:g} above {high:g}: give [smallest, largest]"


def read_split(value: Any) -> SplitMember:
    """The member of SPLITS that a mapping chooses; without `kind` it is `days`. A member is
    returned as it is. ValueError on an unknown kind or wrong settings.
    """
    if isinstance(value, BaseModel):
        return cast(SplitMember, value)
    if not isinstance(value, Mapping):
        raise ValueError("give a mapping, such as {test_day: 2024-03-07}")
    choice = {"kind": IMPLIED_KINDS["split"], **value}
    if not isinstance(choice["kind"], str):
        raise ValueError(f"kind is {shown(choice['kind'])}: give a name, such as days")
    try:
        split = families.build(SPLITS, Member.model_validate(choice))
    except ConfigError as error:
        raise ValueError(str(error)) from error
    return cast(SplitMember, split)


Split = Annotated[SplitMember, PlainValidator(read_split)]
