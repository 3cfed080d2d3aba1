"""Which column is the user, the item, the time and the label, by names, types and cardinality."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from dssm_core.columns import ITEM, LABEL, TIME, USER
from dssm_core.errors import DataError, shown
from dssm_core.inspection import words
from dssm_core.inspection.columns import Column
from dssm_core.inspection.words import words_of

SHOWN = 20  # column names in a message
RATING = "rating"  # the name that a column of ratings gets
LIKED = 3 / 5  # of the highest rating, above which a row is a positive


@dataclass(frozen=True)
class Roles:
    """The columns of a log that have a meaning. user: None if rows are sessions; time: None if the
    log has no times; label: None for clicks only.
    """

    user: str | None
    item: str
    time: str | None
    label: str | None
    doubts: tuple[str, ...] = ()

    @property
    def taken(self) -> set[str]:
        """The columns that are no features."""
        return {name for name in (self.user, self.item, self.time, self.label) if name}


def id_score(name: str, vocabulary: Collection[str]) -> int:
    """How much a name looks like the id of what the words mean; 0 not at all."""
    parts = words_of(name)
    if not set(parts) & set(vocabulary) or set(parts) & words.ABOUT:
        return 0
    return 2 + ("id" in parts or parts[-1].endswith("id")) + (len(parts) <= 2)


def guess_roles(
    columns: Mapping[str, Column],
    times: Collection[str],
    where: str,
    chosen: Mapping[str, str],
    header: bool = True,
    without: Collection[str] = (),
    lacks: str | None = None,
) -> Roles:
    """The roles of a log's columns.

    times: the columns that hold times. chosen: column by canonical name where a person has said
    it. without: columns that are no users. lacks: USER or TIME, which the log may lack. Raises
    DataError naming the columns if there is no user, no item or no time.
    """
    doubts: list[str] = []
    user = chosen.get(USER) or best(columns, words.USER) or best(columns, words.SESSION)
    item = chosen.get(ITEM) or best(columns, words.ITEM, without=(user,))
    if not header and not (user and item):
        taken = {*without, *(name for name in (item,) if name)}
        rest = {name: column for name, column in columns.items() if name not in taken}
        first, second = by_place(rest, times)
        user, item = user or first, item or second
        doubts.append(
            "the files have no header: the first ids are taken for users, the next for items"
        )
    missing = [key for key, name in ((USER, user), (ITEM, item)) if name is None and key != lacks]
    if missing:
        raise DataError(_no_role(missing, columns, where))
    assert item is not None
    if user is None:
        doubts.append("no column is a user: each row is a session of its own (docs/own-log.md)")
    elif not set(words_of(user)) & words.USER and USER not in chosen and header:
        doubts.append(f"no column is called a user: each value of {shown(user)} counts as one")
    time = chosen.get(TIME) or best_time(times)
    if time is None and lacks == TIME:
        doubts.append(
            "no column has times that can be read, so the order of the rows counts: name one with"
            " --time if there is one"
        )
    elif time is None:
        raise DataError(
            f"{where} has no column whose times can be read; its columns are {listed(columns)}."
            " Write times in seconds, in ms or in ISO form"
        )
    label = best_label({name: columns[name] for name in columns if name not in (user, item, time)})
    return Roles(user, item, time, label, tuple(doubts))


def best(
    columns: Mapping[str, Column], vocabulary: Collection[str], without: Iterable[str | None] = ()
) -> str | None:
    """The column with the best id score; of equal ones the one with more distinct values."""
    scores = {
        name: (id_score(name, vocabulary), column.distinct)
        for name, column in columns.items()
        if name not in set(without) and _may_be_id(column)
    }
    first = max(scores, key=lambda name: scores[name], default=None)
    return first if first is not None and scores[first][0] else None


def _may_be_id(column: Column) -> bool:
    """Whether values can be ids: filled, and no fractions."""
    fractions = column.numbers > 0.5 and column.whole < column.numbers
    return column.filled > 0 and not fractions and not column.is_timestamp and not column.is_list


def by_place(
    columns: Mapping[str, Column], times: Collection[str]
) -> tuple[str | None, str | None]:
    """The first two columns that can be ids, which are a user and an item in most public logs; None
    for those that are missing.
    """
    ids = [
        name
        for name, column in columns.items()
        if name not in times and _may_be_id(column) and column.distinct > 1
    ]
    return (ids[0] if ids else None), (ids[1] if len(ids) > 1 else None)


def best_time(times: Collection[str]) -> str | None:
    """The column of times whose name says so most; the first of equal ones."""
    scores = {name: len(set(words_of(name)) & words.TIME) for name in times}
    starts = {name: "start" in words_of(name) or "end" in words_of(name) for name in times}
    return max(times, key=lambda name: (not starts[name], scores[name]), default=None)


def best_label(columns: Mapping[str, Column]) -> str | None:
    """The column that says how an interaction ended: a rating, else a 0/1 label; None for none."""
    for vocabulary, fits in ((words.RATING, _is_named_rating), (words.LABEL, is_binary)):
        for name, column in columns.items():
            if set(words_of(name)) & vocabulary and fits(column):
                return name
    unnamed = [
        name
        for name, column in columns.items()
        if re.fullmatch(r"column\d+", name) and (is_rating(column) and not is_binary(column))
    ]
    return unnamed[0] if unnamed else None


def is_binary(column: Column) -> bool:
    """Whether all values are 0 and 1, or -1 and 1, or of the type BOOLEAN."""
    values = {value.removesuffix(".0") for value in column.values}
    return values in ({"0", "1"}, {"-1", "1"}) or column.type == "BOOLEAN"


def _is_named_rating(column: Column) -> bool:
    """Whether a column that is called a rating is one; a sample may have two steps of the scale."""
    return is_rating(column, 2) and not is_binary(column)


def is_rating(column: Column, fewest: int = 3) -> bool:
    """Whether values are steps of a scale, such as 1 to 5 or 0.5 to 5. fewest: steps."""
    return (
        column.is_number
        and fewest <= len(column.values) <= 21
        and column.low is not None
        and column.high is not None
        and column.low >= 0
        and column.high <= 100
    )


def listed(names: Iterable[str]) -> str:
    """The names of columns for a message, the first SHOWN of them."""
    all_names = [shown(name) for name in names]
    more = f" and {len(all_names) - SHOWN:,} more" if len(all_names) > SHOWN else ""
    return ", ".join(all_names[:SHOWN]) + more


def _no_role(missing: Sequence[str], columns: Iterable[str], where: str) -> str:
    """Why a file is no log, with its columns, and how to go on."""
    options = " ".join(f"--{key.removesuffix('_id')} COLUMN" for key in missing)
    return (
        f"{where} has no column that looks like {' or '.join(missing)}; its columns are"
        f" {listed(columns)}. Name them with {options}, or write the config by hand"
        " (configs/example-own-log.yaml)"
    )


@dataclass(frozen=True)
class Label:
    """What counts as a positive. name: that the column gets. doubt: of the bound."""

    name: str
    positive: str
    labels: tuple[float, ...]
    doubt: str | None = None


def guess_label(column: Column) -> Label:
    """What counts as a positive in a column of labels or ratings."""
    if is_binary(column):
        negative = -1 if column.low == -1 else 0
        return Label(LABEL, "label == 1", (negative, 1))
    labels = tuple(sorted(map(_plain, column.values)))
    bound = int(labels[-1] * LIKED)
    return Label(
        RATING,
        f"{RATING} > {bound}",
        labels,
        f"values go from {labels[0]:g} to {labels[-1]:g}: a row above {bound} is a positive",
    )


def _plain(text: str) -> float:
    number = float(text)
    return int(number) if number.is_integer() else number
