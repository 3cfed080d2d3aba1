"""The files of the 2018 Tencent social-ads lookalike contest: train.csv, adFeature.csv and
userFeature.data, as published.

A row of train.csv says that a person was shown an ad (`aid,uid,label`), label 1 for those who
belong to its audience and -1 for the others. There are no times: the timestamp is the row's number
(which reads as milliseconds after 1970-01-01), so split by a protocol that needs no days, such as
`holdout`, with item activity switched off.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from duckdb import DuckDBPyConnection, DuckDBPyRelation
from pydantic import AfterValidator, BaseModel, ConfigDict

from dssm_core.columns import INTERACTIONS, ITEM, ITEMS, LABEL, TIME, USER, USERS
from dssm_core.data.sources.columns import (
    Table,
    canonical,
    find_files,
    id_text,
    inside,
    quote,
    text,
)
from dssm_core.data.sources.delimited import TextTable, raw_text, read_text, whole_lines
from dssm_core.data.sources.protocol import Tables

AD, PERSON = "aid", "uid"
PERSON_KEYS = (
    *("age", "gender", "marriageStatus", "education", "consumptionAbility", "LBS"),
    *(
        "interest1",
        "interest2",
        "interest3",
        "interest4",
        "interest5",
        "kw1",
        "kw2",
        "kw3",
        "topic1",
        "topic2",
        "topic3",
    ),
    *("appIdInstall", "appIdAction", "ct", "os", "carrier", "house"),
)

Pattern = Annotated[str, AfterValidator(inside)]


class Tencent(BaseModel):
    """path: the folder of the files, or train.csv itself. ads, people: left out where no file
    matches the glob.

    direction: `lookalike` makes an ad the user and a person the item, so that an ad, by the people
    it has, retrieves people; `recall` is the other way round. A person's keys become columns of
    their names, several values in a cell separated by blanks.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    path: str
    direction: Literal["lookalike", "recall"] = "lookalike"
    train: Pattern = "train*.csv*"
    ads: Pattern = "adFeature.csv*"
    people: Pattern = "userFeature.data*"

    def files(self) -> dict[str, Path]:
        """The files that are there, by relative name; DataError when no train file is."""
        return (
            find_files(self.path, [self.train]) | self._beside(self.ads) | self._beside(self.people)
        )

    def read(self, con: DuckDBPyConnection) -> Tables:
        """interactions (label 1 or 0, timestamp = row number), and the tables of ads and people
        where there are files.
        """
        ad, person = (USER, ITEM) if self.direction == "lookalike" else (ITEM, USER)
        interactions = _shown(
            con, find_files(self.path, [self.train]), {ad: AD, person: PERSON, LABEL: LABEL}
        )
        ads, people = self._beside(self.ads), self._beside(self.people)
        tables: dict[str, DuckDBPyRelation | None] = {
            ad: read_text(con, ads, _table(ad), TextTable(files=self.ads, columns={ad: AD}))
            if ads
            else None,
            person: con.sql(_people(list(people.values()), person)) if people else None,
        }
        return Tables(interactions, tables[USER], tables[ITEM])

    def _beside(self, pattern: str) -> dict[str, Path]:
        base = Path(self.path).expanduser()
        folder = base.parent if base.is_file() else base
        return (
            find_files(str(folder), [pattern])
            if any(file.is_file() for file in folder.glob(pattern))
            else {}
        )


def _table(key: str) -> str:
    return USERS if key == USER else ITEMS


def _shown(
    con: DuckDBPyConnection, files: dict[str, Path], columns: dict[str, str]
) -> DuckDBPyRelation:
    """The rows of train.csv with their number as the time; -1 becomes 0, any other label is left
    for validation to judge.
    """
    raw = raw_text(con, files, TextTable(files="*")).project(
        f"*, row_number() OVER () - 1 AS {TIME}"
    )
    spec = Table(files="*", columns=columns)
    rows = canonical(con, raw, INTERACTIONS, spec, repr(next(iter(files))))
    return rows.project(
        f"* REPLACE (CASE trim({LABEL}) WHEN '-1' THEN '0' ELSE {LABEL} END AS {LABEL})"
    )


def _people(files: list[Path], key: str) -> str:
    """SQL: a person a row from lines `uid 7|age 4|interest1 93 70`; keys unknown or given twice are
    errors, never lost.
    """
    known = "[" + ", ".join(text(name) for name in (PERSON, *PERSON_KEYS)) + "]"
    says = f"concat('a person has a key twice, or one besides ', CAST({known} AS VARCHAR), ': ', line[:200])"
    cells = {
        name: f"nullif(trim(parts[list_position(keys, '{name}')][{len(name) + 1}:]), '')"
        for name in (PERSON, *PERSON_KEYS)
    }
    columns = ", ".join(f"{cells[name]} AS {quote(name)}" for name in PERSON_KEYS)
    return (
        rf"WITH trimmed AS (SELECT trim(line, E' \t\r|') AS line FROM {whole_lines(files)}),"
        r" split AS (SELECT line, string_split(line, '|') AS parts, string_split(regexp_replace(line, '[ \t][^|]*', '', 'g'), '|') AS keys"
        " FROM trimmed WHERE line <> '')"
        f" SELECT {id_text(cells[PERSON], 'VARCHAR')} AS {key}, {columns} FROM split"
        f" WHERE CASE WHEN len(list_intersect(keys, {known})) = len(keys) THEN true ELSE error({says}) END"
    )
