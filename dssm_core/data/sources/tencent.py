"""The files of the 2018 Tencent social-ads lookalike contest: train.csv, adFeature.csv and
userFeature.data.

A row of train.csv (`aid,uid,label`) is a person who was shown an ad. The label is 1 if the person
belongs to the ad's audience, else -1. There are no times: the timestamp is the row's number (as
milliseconds after 1970-01-01). Use a split without days, such as `holdout`, and disable item
activity.
"""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, Literal

from duckdb import DuckDBPyConnection, DuckDBPyRelation
from pydantic import BaseModel, ConfigDict

from dssm_core.columns import INTERACTIONS, ITEM, ITEMS, LABEL, ROW, TIME, USER, USERS
from dssm_core.data.sources.canonical import to_canonical
from dssm_core.data.sources.delimited import TextTable, read_raw_text, read_text
from dssm_core.data.sources.files import Pattern, find_files
from dssm_core.data.sources.ids import id_text
from dssm_core.data.sources.mapped import MappedTable
from dssm_core.data.sources.protocol import LogTables
from dssm_core.data.sql import identifier, literal, whole_lines

AD = "aid"
PERSON = "uid"
PERSON_KEYS = (
    *("age", "gender", "marriageStatus", "education", "consumptionAbility", "LBS"),
    *("interest1", "interest2", "interest3", "interest4", "interest5"),
    *("kw1", "kw2", "kw3", "topic1", "topic2", "topic3"),
    *("appIdInstall", "appIdAction", "ct", "os", "carrier", "house"),
)


class Tencent(BaseModel):
    """The log of the Tencent lookalike contest. The keys of a person become columns of their names;
    several values in a cell are separated by blanks.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)
    timed: ClassVar[bool] = True
    ignores: ClassVar[tuple[str, ...]] = ()
    path: str
    """The folder of the files, or train.csv itself."""
    direction: Literal["lookalike", "recall"] = "lookalike"
    """With `lookalike` the ad is the user and the person is the item, so that an ad retrieves
    people by the people it already has; `recall` is the other way round."""
    train: Pattern = "train*.csv*"
    """Glob pattern of the files of pairs."""
    ads: Pattern = "adFeature.csv*"
    """Glob pattern of the files of ads, which may be absent."""
    people: Pattern = "userFeature.data*"
    """Glob pattern of the files of people, which may be absent."""

    def files(self) -> dict[str, Path]:
        """The existing files by relative name; DataError when there is no train file."""
        train = find_files(self.path, [self.train])
        return train | self._optional(self.ads) | self._optional(self.people)

    def read(self, con: DuckDBPyConnection) -> LogTables:
        """interactions (label 1 or 0, timestamp = row number), and the tables of ads and people if
        their files exist.
        """
        ad, person = (USER, ITEM) if self.direction == "lookalike" else (ITEM, USER)
        train = find_files(self.path, [self.train])
        tables: dict[str, DuckDBPyRelation | None] = {USER: None, ITEM: None}
        if ads := self._optional(self.ads):
            spec = TextTable(files=self.ads, columns={ad: AD})
            tables[ad] = read_text(con, ads, _table(ad), spec)
        if people := self._optional(self.people):
            tables[person] = con.sql(_people(list(people.values()), person))
        interactions = _shown(con, train, {ad: AD, person: PERSON, TIME: ROW, LABEL: LABEL})
        return LogTables(interactions, tables[USER], tables[ITEM])

    def _optional(self, pattern: str) -> dict[str, Path]:
        base = Path(self.path).expanduser()
        folder = base.parent if base.is_file() else base
        exists = any(file.is_file() for file in folder.glob(pattern))
        return find_files(str(folder), [pattern]) if exists else {}


def _table(key: str) -> str:
    return USERS if key == USER else ITEMS


def _shown(
    con: DuckDBPyConnection, files: dict[str, Path], columns: dict[str, str]
) -> DuckDBPyRelation:
    """The rows of train.csv with their number as timestamp. Label -1 becomes 0; validation judges
    any other label.
    """
    raw = read_raw_text(con, files, TextTable(files="*")).project(
        f"*, row_number() OVER () - 1 AS {ROW}"
    )
    spec = MappedTable(columns={**columns})
    rows = to_canonical(raw, INTERACTIONS, spec, repr(next(iter(files))))
    return rows.project(
        f"* REPLACE (CASE trim({LABEL}) WHEN '-1' THEN '0' ELSE {LABEL} END AS {LABEL})"
    )


def _people(files: list[Path], key: str) -> str:
    """SQL: one row a person from lines such as `uid 7|age 4|interest1 93 70`. A key that is unknown
    or repeated in a line is an error.
    """
    keys = "[" + ", ".join(literal(name) for name in (PERSON, *PERSON_KEYS)) + "]"
    cells = {
        name: f"nullif(trim(parts[list_position(keys, '{name}')][{len(name) + 1}:]), '')"
        for name in (PERSON, *PERSON_KEYS)
    }
    columns = ", ".join(f"{cells[name]} AS {identifier(name)}" for name in PERSON_KEYS)
    message = (
        f"concat('a person has a key twice, or a key other than ', CAST({keys} AS VARCHAR), ': ',"
        " line[:200])"
    )
    names = r"string_split(regexp_replace(line, '[ \t][^|]*', '', 'g'), '|')"
    return rf"""
    WITH trimmed AS (SELECT trim(line, E' \t\r|') AS line FROM {whole_lines(files)}),
    split AS (
        SELECT line, string_split(line, '|') AS parts, {names} AS keys FROM trimmed
        WHERE line <> ''
    )
    SELECT {id_text(cells[PERSON], "VARCHAR")} AS {key}, {columns} FROM split
    WHERE CASE WHEN len(list_intersect(keys, {keys})) = len(keys) THEN true
        ELSE error({message}) END
    """
